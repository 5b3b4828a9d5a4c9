{{/* The keys that the chart sets, as YAML. Argument: (dict "root" $ "role" "gateway"). */}}
{{- define "tidegate.config.managed" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
server:
  admin: 0.0.0.0:8002
  {{- if eq .role "gateway" }}
  public: 0.0.0.0:8000
  {{- else if eq .role "router" }}
  api: 0.0.0.0:8001
  {{- end }}
cluster:
  routers: [{{ include "tidegate.routers" $root | quote }}]
  {{- if eq .role "router" }}
  listen: 0.0.0.0:8003
  {{- end }}
{{- if eq .role "gateway" }}
limits:
  connections: {{ int64 $values.gateway.connectionsPerPod }}
drain:
  wait: {{ int64 $values.gateway.drain.waitSeconds }}s
  window: {{ include "tidegate.drain.window" $root }}s
  retry_window: {{ int64 $values.gateway.drain.retryWindowSeconds }}s
{{- if $values.secrets.auth.existingSecret }}
auth:
  hmac_secret_file: /run/secrets/tidegate/auth/{{ $values.secrets.auth.key }}
{{- else if $values.dev }}
auth:
  anonymous: true
{{- end }}
{{- if $values.gateway.tls.existingSecret }}
tls:
  cert_file: /run/secrets/tidegate/tls/tls.crt
  key_file: /run/secrets/tidegate/tls/tls.key
{{- end }}
{{- end }}
{{- if eq .role "router" }}
store:
  data_dir: /var/lib/tidegate
{{- end }}
{{- if has .role (list "router" "topics") }}
{{- if not (and $values.kafka.existingSecret $values.kafka.bootstrapKey) }}
kafka:
  bootstrap: {{ toJson $values.kafka.bootstrap }}
{{- end }}
{{- end }}
{{- if and $values.registry.enabled (ne .role "topics") }}
registry:
  members_file: /etc/tidegate/members/members.toml
  {{- if eq .role "registry" }}
  listen: 0.0.0.0:8004
  id: auto
  {{- end }}
{{- end }}
{{- end }}

{{/* What the chart chooses where `config` says nothing: a user of a node that drains is not offline before it may be back. */}}
{{- define "tidegate.config.defaults" -}}
{{- if and .root.Values.registry.enabled (eq .role "registry") -}}
registry: {debounce: {{ add (int64 .root.Values.gateway.drain.retryWindowSeconds) 10 }}s}
{{- end }}
{{- end }}

{{/* tidegate.toml of a role. JSON's texts, numbers, booleans and lists of them are TOML's too. */}}
{{- define "tidegate.config" -}}
{{- $own := dict }}
{{- if ne .role "topics" }}{{ $own = (index .root.Values .role).config }}{{ else }}{{ $own = .root.Values.router.config }}{{ end }}
{{- $managed := include "tidegate.config.managed" . | fromYaml }}
{{- $defaults := include "tidegate.config.defaults" . | fromYaml }}
{{- $config := mergeOverwrite $defaults (deepCopy .root.Values.config) (deepCopy $own) $managed }}
{{- range $section, $keys := $config }}
{{- if eq $section "namespaces" }}
{{- range $name, $inner := $keys }}
[namespaces.{{ toJson $name }}]
{{- range $key, $value := $inner }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{ end }}
{{- else if $keys }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{ end }}
{{- end }}
{{- end }}

{{/* The member list: who the members are, by the numbers of their pods. */}}
{{- define "tidegate.members" -}}
{{- $root := . }}
{{- $name := printf "%s-registry" (include "tidegate.fullname" .) }}
version = {{ int64 .Values.registry.membersVersion }}
{{- range $id := until (int .Values.registry.replicas) }}

[[members]]
id = {{ $id }}
address = "{{ $name }}-{{ $id }}.{{ $name }}-headless.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}:8004"
weight = 1
{{- end }}
{{- end }}
