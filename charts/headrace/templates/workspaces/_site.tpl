{{/*
What a step inside the cluster knows of where it is (headrace.api.site), as JSON. Endpoint and region are variables of
the pods, since trainings and endpoints get no ConfigMap.
*/}}
{{- define "headrace.site" -}}
{{- $ray := (include "headrace.profile" . | fromYaml).ray -}}
{{- $defaults := dict "image" (include "headrace.image" (dict "root" . "image" "runtime")) "imagePullPolicy" .Values.global.imagePullPolicy -}}
{{- with .Values.global.imagePullSecrets -}}
{{- $_ := set $defaults "imagePullSecrets" . -}}
{{- end -}}
{{- $pods := mergeOverwrite $defaults $ray (omit .Values.site.pods "environment") -}}
{{- $environment := list (dict "name" "AWS_REGION" "value" .Values.s3.region) -}}
{{- with include "headrace.s3.endpoint" . -}}
{{- $environment = append $environment (dict "name" "AWS_ENDPOINT_URL" "value" .) -}}
{{- end -}}
{{- $own := dict -}}
{{- range .Values.site.pods.environment -}}{{- $_ := set $own .name "" -}}{{- end -}}
{{- $kept := list -}}
{{- range $environment -}}{{- if not (hasKey $own .name) -}}{{- $kept = append $kept . -}}{{- end -}}{{- end -}}
{{- $_ := set $pods "environment" (concat $kept (.Values.site.pods.environment | default list)) -}}
{{- $store := dict "uri" (include "headrace.store.uri" .) -}}
{{- if include "headrace.store.secret" . -}}
{{- $_ := set $store "secretName" "headrace-store" -}}
{{- end -}}
{{- $mlflow := dict "trackingURI" (include "headrace.mlflow.trackingURI" .) -}}
{{- if and (not .Values.mlflow.enabled) .Values.mlflow.external.existingSecret -}}
{{- $_ := set $mlflow "secretName" "headrace-mlflow" -}}
{{- end -}}
{{- $site := dict "store" $store "mlflow" $mlflow "pods" $pods "authentication" (dict "mode" .Values.site.authentication) "gpusPerWorker" .Values.site.gpusPerWorker "maxRetries" .Values.site.maxRetries -}}
{{- with .Values.site.queue -}}
{{- $_ := set $site "queue" . -}}
{{- end -}}
{{- toJson $site -}}
{{- end -}}
