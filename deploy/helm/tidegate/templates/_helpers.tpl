{{/* Names. An object's name is that of the release with the role behind it. The longest suffix in use has 16 characters, and the
     pods of a StatefulSet carry "<name>-<10 characters>" as a label, of at most 63. So the full name has at most 36: a longer one
     is cut and ends in a hash of all of it, and two of them stay apart. */}}
{{- define "tidegate.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- end }}
{{- if gt (len $full) 36 }}
{{- $full = printf "%s-%s" (trunc 27 $full | trimSuffix "-") (sha256sum $full | trunc 8) }}
{{- end }}
{{- $full }}
{{- end }}

{{- define "tidegate.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidegate.serviceAccountName" -}}
{{- $default := ternary (include "tidegate.fullname" .) "default" .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default $default }}
{{- end }}

{{/* What selects the pods of a role; never changes in the life of a release. Argument: (dict "root" $ "role" "gateway"). */}}
{{- define "tidegate.selector" -}}
app.kubernetes.io/name: {{ include "tidegate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{/* Of pods: nothing that changes when only the chart does, or a new chart would restart every node. */}}
{{- define "tidegate.podLabels" -}}
{{ include "tidegate.selector" . }}
app.kubernetes.io/part-of: tidegate
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidegate.labels" -}}
{{ include "tidegate.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- define "tidegate.image" -}}
{{- $image := .Values.image }}
{{- $name := $image.repository }}
{{- with $image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end }}
{{- if $image.digest }}{{ $name }}@{{ $image.digest }}{{ else }}{{ $name }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Where the routers serve gateways, members and each other: one name with the addresses of all of them. */}}
{{- define "tidegate.routers" -}}
{{ include "tidegate.fullname" . }}-router-headless.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:8003
{{- end }}

{{/* --- Drain arithmetic: seconds. ------------------------------------------------------------------------- */}}
{{- define "tidegate.drain.pace" -}}
{{- $gateway := .Values.gateway }}
{{- $perPod := int64 $gateway.connectionsPerPod }}
{{- $perSecond := int64 $gateway.drain.closesPerSecond }}
{{- div (sub (add $perPod $perSecond) 1) $perSecond }}
{{- end }}

{{- define "tidegate.drain.window" -}}
{{- .Values.gateway.drain.windowSeconds | int64 | default (include "tidegate.drain.pace" . | int64) }}
{{- end }}

{{/* 20 s beyond the pace: the drain itself may take 6 s more, ending the shards 5 s, and the rest is for the log and the exit. */}}
{{- define "tidegate.drain.graceNeeded" -}}
{{- add (int64 .Values.gateway.drain.waitSeconds) (include "tidegate.drain.window" . | int64) 20 }}
{{- end }}

{{- define "tidegate.drain.grace" -}}
{{- .Values.gateway.terminationGracePeriodSeconds | int64 | default (include "tidegate.drain.graceNeeded" . | int64) }}
{{- end }}

{{/* Connections a node at which the autoscaler adds one. */}}
{{- define "tidegate.autoscaling.target" -}}
{{- $percent := div (mul (int64 .Values.gateway.connectionsPerPod) 70) 100 }}
{{- .Values.gateway.autoscaling.targetConnections | int64 | default (max 1 $percent | int64) }}
{{- end }}
