{{/* Where things are, as pods of any namespace reach them. One place, since fronts, trainings and steps are told. */}}

{{- define "headrace.mlflow.trackingURI" -}}
{{- if .Values.mlflow.enabled -}}
http://headrace-mlflow.{{ .Release.Namespace }}.svc:5000
{{- else -}}
{{ .Values.mlflow.external.trackingURI }}
{{- end -}}
{{- end -}}

{{/* Names that MLflow is called by: `Host` headers that it takes, with and without the port. */}}
{{- define "headrace.mlflow.allowedHosts" -}}
{{- $service := printf "headrace-mlflow.%s" .Release.Namespace -}}
{{- $names := list "headrace-mlflow" $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service) -}}
{{- $names = concat $names (list "localhost" "127.0.0.1") .Values.mlflow.allowedHosts -}}
{{- if and .Values.mlflow.ingress.enabled .Values.mlflow.ingress.host -}}
{{- $names = append $names .Values.mlflow.ingress.host -}}
{{- end -}}
{{- $all := list -}}
{{- range $names | uniq -}}
{{- $all = append $all . -}}
{{- if not (contains ":" .) -}}
{{- $all = append $all (printf "%s:*" .) -}}
{{- end -}}
{{- end -}}
{{ join "," $all }}
{{- end -}}

{{- define "headrace.s3.endpoint" -}}
{{- if .Values.s3.enabled -}}
http://headrace-s3.{{ .Release.Namespace }}.svc:7070
{{- else -}}
{{ .Values.s3.external.endpoint }}
{{- end -}}
{{- end -}}

{{/* The top of everything that Headrace keeps in the bucket. */}}
{{- define "headrace.s3.base" -}}
s3://{{ .Values.s3.bucket }}{{ with .Values.s3.prefix }}/{{ . }}{{ end }}
{{- end -}}

{{- define "headrace.store.uri" -}}
{{ include "headrace.s3.base" . }}/store
{{- end -}}

{{- define "headrace.mlflow.artifacts" -}}
{{ include "headrace.s3.base" . }}/mlflow
{{- end -}}

{{/* The Secret of the release's namespace with the database's address (key `uri`). */}}
{{- define "headrace.database.secret" -}}
{{- if and .Values.mlflow.enabled .Values.postgresql.enabled -}}headrace-postgresql-client{{- else -}}{{ .Values.postgresql.existingSecret }}{{- end -}}
{{- end -}}

{{/* The Secret of the release's namespace with the keys of the store; empty where pods get their rights otherwise. */}}
{{- define "headrace.store.secret" -}}
{{- if .Values.s3.enabled -}}headrace-store{{- else -}}{{ .Values.s3.external.existingSecret }}{{- end -}}
{{- end -}}

{{/* Environment of a container of the release's namespace that reads or writes the store. */}}
{{- define "headrace.store.env" -}}
- {name: AWS_REGION, value: {{ .Values.s3.region | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.s3.region | quote }}}
- {name: AWS_EC2_METADATA_DISABLED, value: {{ ternary "true" "false" (ne (include "headrace.store.secret" .) "") | quote }}}
{{- with include "headrace.s3.endpoint" . }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with include "headrace.store.secret" . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- end -}}

{{/* Environment of a container that opens MLflow's database. */}}
{{- define "headrace.database.env" -}}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom: {secretKeyRef: {name: {{ include "headrace.database.secret" . }}, key: uri}}
{{- end -}}
