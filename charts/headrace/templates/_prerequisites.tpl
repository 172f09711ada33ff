{{/* Whether one of files/prerequisites.yaml is required with these values. */}}
{{- define "headrace.required" -}}
{{- if or (and (eq .of.required "always") .root.Values.operator.enabled) (and (eq .of.required "monitoring") .root.Values.monitoring.enabled) -}}true{{- end -}}
{{- end -}}

{{/* Whether the cluster has it: any of the kinds by which it is known. */}}
{{- define "headrace.there" -}}
{{- $there := "" -}}
{{- range .of.kinds -}}
{{- if $.root.Capabilities.APIVersions.Has . -}}{{- $there = "true" -}}{{- end -}}
{{- end -}}
{{ $there }}
{{- end -}}
