{{/* The namespaces whose custom resources are saved, as a YAML list. */}}
{{- define "headrace.backup.namespaces" -}}
{{- .Values.backup.namespaces | default (include "headrace.workspaces" . | fromYamlArray) | toYaml -}}
{{- end -}}
