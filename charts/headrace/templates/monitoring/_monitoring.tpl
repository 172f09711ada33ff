{{/* Metadata of an object that the Prometheus Operator reads: with the labels that it selects by. */}}
{{- define "headrace.monitoring.metadata" -}}
{{- $metadata := include "headrace.metadata" (merge (dict "component" "monitoring") .) | fromYaml -}}
{{- $labels := merge (dict) .root.Values.monitoring.labels $metadata.labels -}}
{{- set $metadata "labels" $labels | toYaml -}}
{{- end -}}

{{/* A value as it stands in an expression: whole numbers without an exponent. */}}
{{- define "headrace.monitoring.number" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/*
The groups of rules that an installation gets: those whose series somebody scrapes here. Of what nobody scrapes, alerts on
what is not there would fire for ever, and the others never. As `needs` of the groups in platform/headrace/monitoring.
*/}}
{{- define "headrace.monitoring.groupNames" -}}
{{- $operator := and .Values.operator.enabled .Values.monitoring.operator.enabled -}}
{{- $ray := .Values.monitoring.ray.enabled -}}
{{- if $operator }} headrace-operator headrace-training headrace-serving{{ end -}}
{{- if and $operator .Values.backup.enabled }} headrace-backup{{ end -}}
{{- if $ray }} headrace-serving-objectives headrace-serving-burn-rates{{ end -}}
{{- if and $operator $ray }} headrace-serving-scraped{{ end -}}
{{- end -}}

{{/* The groups of one file of rules: parameters filled in, what was set for single alerts put over them. */}}
{{- define "headrace.monitoring.groups" -}}
{{- $rules := .root.Values.monitoring.rules -}}
{{- $there := include "headrace.monitoring.groupNames" .root | splitList " " -}}
{{- $text := .text | replace "$(namespace)" .root.Release.Namespace -}}
{{- $text = $text | replace "$(watched)" (.root.Values.operator.watchNamespace | default ".*") -}}
{{- range $name, $value := $rules.parameters -}}
{{- $text = $text | replace (printf "$(%s)" $name) (include "headrace.monitoring.number" $value) -}}
{{- end -}}
{{- $groups := list -}}
{{- range $group := (fromYaml $text).groups -}}
{{- $kept := list -}}
{{- range $rule := $group.rules -}}
{{- $own := dict -}}
{{- if $rule.alert -}}
{{- $own = index $rules.alerts $rule.alert | default dict -}}
{{- $labels := merge (dict) ($own.labels | default dict) $rules.labels $rule.labels -}}
{{- with $own.severity -}}{{- $_ := set $labels "severity" . -}}{{- end -}}
{{- $runbook := printf "%s/%s.md" (trimSuffix "/" $rules.runbooks) $rule.alert -}}
{{- $_ := set $rule "labels" $labels -}}
{{- $_ := set $rule "annotations" (merge (dict "runbook_url" $runbook) $rules.annotations $rule.annotations) -}}
{{- with $own.for -}}{{- $_ := set $rule "for" . -}}{{- end -}}
{{- end -}}
{{- if ne (toString $own.enabled) "false" -}}
{{- $kept = append $kept $rule -}}
{{- end -}}
{{- end -}}
{{- if and $kept (has $group.name $there) -}}
{{- $groups = append $groups (set $group "rules" $kept) -}}
{{- end -}}
{{- end -}}
{{- with $groups -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* Where the pods of Ray are: in every namespace, or in the one that the operator looks at. */}}
{{- define "headrace.monitoring.namespaces" -}}
{{- with .Values.operator.watchNamespace -}}
matchNames: [{{ . }}]
{{- else -}}
any: true
{{- end -}}
{{- end -}}
