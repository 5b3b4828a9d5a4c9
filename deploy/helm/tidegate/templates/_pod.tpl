{{/* Everything of a pod that the roles share. Argument: (dict "root" $ "role" "gateway"). */}}
{{- define "tidegate.podMetadata" -}}
{{- $values := index .root.Values .role -}}
labels:
  {{- include "tidegate.podLabels" . | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "tidegate.config" . | sha256sum }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Kubernetes' restricted Pod Security Standard, and no right to write but to what is mounted. */}}
{{- define "tidegate.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tidegate.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tidegate.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Secrets reach a process as variables of its environment, or as a file. With `dev` they are texts for everybody to read. */}}
{{- define "tidegate.secretEnv" -}}
{{- $secret := index .root.Values.secrets .secret -}}
- name: {{ .name }}
  {{- if $secret.existingSecret }}
  valueFrom: {secretKeyRef: {name: {{ $secret.existingSecret | quote }}, key: {{ $secret.key | quote }}}}
  {{- else }}
  value: dev-only-everybody-can-read-this
  {{- end }}
{{- end }}

{{- define "tidegate.kafkaEnv" -}}
{{- $kafka := .Values.kafka }}
{{- if $kafka.existingSecret }}
{{- with $kafka.bootstrapKey }}
- name: TIDEGATE__KAFKA__BOOTSTRAP
  valueFrom: {secretKeyRef: {name: {{ $kafka.existingSecret | quote }}, key: {{ . | quote }}}}
{{- end }}
{{- with $kafka.propertiesKey }}
- name: TIDEGATE__KAFKA__PROPERTIES
  valueFrom: {secretKeyRef: {name: {{ $kafka.existingSecret | quote }}, key: {{ . | quote }}}}
{{- end }}
{{- end }}
{{- end }}

{{- define "tidegate.spread" -}}
{{- $selector := include "tidegate.selector" . }}
{{- $role := .role }}
{{- $spread := (index .root.Values .role).topologySpread }}
{{- if or $spread.zone $spread.hostname }}
topologySpreadConstraints:
  {{- range $key, $what := dict "topology.kubernetes.io/zone" $spread.zone "kubernetes.io/hostname" $spread.hostname }}
  {{- with $what }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ . }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    # Counted by generation, so that a rollout does not lean on the pods that it replaces.
    matchLabelKeys: [{{ ternary "pod-template-hash" "controller-revision-hash" (eq $role "gateway") }}]
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The pod of a role. */}}
{{- define "tidegate.podSpec" -}}
{{- $root := .root }}
{{- $role := .role }}
{{- $values := index $root.Values $role }}
{{- $full := include "tidegate.fullname" $root -}}
serviceAccountName: {{ include "tidegate.serviceAccountName" $root }}
{{ include "tidegate.podSecurity" $root }}
{{- include "tidegate.pullSecrets" $root }}
terminationGracePeriodSeconds: {{ .grace }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- if $values.topologySpread }}
{{- include "tidegate.spread" . }}
{{- end }}
containers:
  - name: {{ $role }}
    image: {{ include "tidegate.image" $root | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: [{{ $role }}, --config, /etc/tidegate/config/tidegate.toml, --quiet]
    {{- include "tidegate.containerSecurity" $root | nindent 4 }}
    env:
      # Its name in logs and in what it says to the others.
      - name: TIDEGATE__SERVER__NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      {{- include "tidegate.secretEnv" (dict "root" $root "secret" "cluster" "name" "TIDEGATE__CLUSTER__KEY") | nindent 6 }}
      {{- if eq $role "router" }}
      - name: TIDEGATE__CLUSTER__ADVERTISE
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      {{- include "tidegate.secretEnv" (dict "root" $root "secret" "api" "name" "TIDEGATE__API__KEYS") | nindent 6 }}
      {{- with include "tidegate.kafkaEnv" $root }}
      {{- . | trim | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    ports:
      {{- range .ports }}
      - {name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP}
      {{- end }}
      - {name: admin, containerPort: 8002, protocol: TCP}
    # The admin port is there before anything else, so a start is over once it answers. What a start waits for (Kafka, the other
    # roles) is readiness; a restart would not mend it.
    startupProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 60
    # False while starting, draining, or without what it needs.
    readinessProbe:
      httpGet: {path: /readyz, port: admin}
      periodSeconds: 5
      timeoutSeconds: 2
      failureThreshold: 2
    # The event loop's heartbeat, and nothing that lies outside of the process. It is silent for 10 s before it counts as stuck.
    livenessProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    {{- with $values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    volumeMounts:
      - {name: config, mountPath: /etc/tidegate/config, readOnly: true}
      {{- if $root.Values.registry.enabled }}
      # A directory and no subPath: what is changed in the ConfigMap shows here, and is taken without a restart.
      - {name: members, mountPath: /etc/tidegate/members, readOnly: true}
      {{- end }}
      {{- if and (eq $role "gateway") $root.Values.secrets.auth.existingSecret }}
      - {name: auth, mountPath: /run/secrets/tidegate/auth, readOnly: true}
      {{- end }}
      {{- if and (eq $role "gateway") $root.Values.gateway.tls.existingSecret }}
      # No subPath here either: a renewed certificate shows, and is taken without a restart.
      - {name: tls, mountPath: /run/secrets/tidegate/tls, readOnly: true}
      {{- end }}
      {{- if eq $role "router" }}
      - {name: data, mountPath: /var/lib/tidegate}
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap: {name: {{ $full }}-{{ $role }}}
  {{- if $root.Values.registry.enabled }}
  - name: members
    configMap: {name: {{ $full }}-members}
  {{- end }}
  {{- if and (eq $role "gateway") $root.Values.secrets.auth.existingSecret }}
  - name: auth
    secret:
      secretName: {{ $root.Values.secrets.auth.existingSecret | quote }}
      defaultMode: 288 # 0440
      items: [{key: {{ $root.Values.secrets.auth.key | quote }}, path: {{ $root.Values.secrets.auth.key | quote }}}]
  {{- end }}
  {{- if and (eq $role "gateway") $root.Values.gateway.tls.existingSecret }}
  - name: tls
    secret:
      secretName: {{ $root.Values.gateway.tls.existingSecret | quote }}
      defaultMode: 288 # 0440
      items:
        - {key: {{ $root.Values.gateway.tls.certKey | quote }}, path: tls.crt}
        - {key: {{ $root.Values.gateway.tls.privateKeyKey | quote }}, path: tls.key}
  {{- end }}
  {{- if and (eq $role "router") (not $root.Values.router.persistence.enabled) }}
  - name: data
    emptyDir: {sizeLimit: {{ $root.Values.router.persistence.size }}}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* How many of a role may be missing. */}}
{{- define "tidegate.pdb" -}}
{{- $pdb := (index .root.Values .role).pdb }}
{{- if $pdb.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "tidegate.fullname" .root }}-{{ .role }}
  labels:
    {{- include "tidegate.labels" . | nindent 4 }}
spec:
  {{- if ne (toString $pdb.minAvailable) "" }}
  minAvailable: {{ $pdb.minAvailable }}
  {{- else }}
  maxUnavailable: {{ $pdb.maxUnavailable }}
  {{- end }}
  # A pod that is not ready serves nobody: it may always go.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tidegate.selector" . | nindent 6 }}
{{- end }}
{{- end }}
