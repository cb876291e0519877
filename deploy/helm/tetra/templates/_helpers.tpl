{{- define "tetra.name" -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- end }}

{{- define "tetra.labels" -}}
app.kubernetes.io/name: tetra
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that choose the pods of one part: dict "root" $ "part" NAME */}}
{{- define "tetra.selector" -}}
app.kubernetes.io/name: tetra
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "tetra.image" -}}
{{ .root.Values.image.repository }}/tetra-{{ .part }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "tetra.natsUrl" -}}
{{- if .Values.nats.enabled -}}
nats://{{ include "tetra.name" . }}-nats:4222
{{- else -}}
{{ required "nats.external.url: set it, or nats.enabled=true" .Values.nats.external.url }}
{{- end -}}
{{- end }}

{{/* Secret with the NATS password of a part, empty where there is none. */}}
{{- define "tetra.natsSecret" -}}
{{- if .root.Values.nats.enabled -}}
{{ include "tetra.name" .root }}-nats-{{ .part }}
{{- else -}}
{{ index .root.Values.nats.external (printf "%sSecret" .part) }}
{{- end -}}
{{- end }}

{{- define "tetra.natsEnvironment" -}}
- name: TETRA_NATS_URL
  value: {{ include "tetra.natsUrl" .root | quote }}
{{- if include "tetra.natsSecret" . }}
- name: TETRA_NATS_USER
  value: {{ .part }}
- name: TETRA_NATS_PASSWORD_FILE
  value: /run/secrets/tetra-nats/nats-password
{{- end }}
{{- end }}

{{- define "tetra.environment" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "tetra.tlsSecret" -}}
{{ .Values.tls.secretName | default (printf "%s-gateway-tls" (include "tetra.name" .)) }}
{{- end }}

{{/* Security context of a container that needs no rights on the node. */}}
{{- define "tetra.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}
