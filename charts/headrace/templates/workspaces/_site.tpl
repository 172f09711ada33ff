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
{{- $site := dict "store" $store "mlflow" $mlflow "pods" $pods "authentication" (dict "mode" .Values.site.authentication) "gpusPerWorker" .Values.site.gpusPerWorker "maxRetries" .Values.site.maxRetries "ttlSecondsAfterFinished" (int64 .Values.site.ttlSecondsAfterFinished) -}}
{{- with .Values.site.queue -}}
{{- $_ := set $site "queue" . -}}
{{- end -}}
{{- toJson $site -}}
{{- end -}}

{{/* The notes' first TrainingRun, as YAML: the digits that come with Headrace, one worker, with what the site says. */}}
{{- define "headrace.firstRun" -}}
{{- $site := include "headrace.site" . | fromJson -}}
{{- $_ := set $site.pods.worker "gpu" $site.gpusPerWorker -}}{{/* as steps do (steps/cluster_wish.py, fitting) */}}
{{- $train := dict "epochs" 8 "gpusPerWorker" $site.gpusPerWorker -}}
{{- $spec := omit $site "gpusPerWorker" | merge (dict "train" $train "model" (dict "name" "resnet8")) -}}
{{- $_ = set $spec "tasks" (list (dict "name" "image-classification")) -}}
{{- $_ = set $spec "data" (dict "source" "builtin:digits" "format" "image-folder") -}}
apiVersion: headrace.dev/v1alpha1
kind: TrainingRun
metadata: {name: digits}
spec:
  {{- toYaml $spec | nindent 2 }}
{{- end -}}
