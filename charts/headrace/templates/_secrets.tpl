{{/*
Passwords and keys that the chart makes. Each has a number, its generation: the Secret holds those of the generations
before and after the one in use as well, and the server takes all three. So a change (raising the number by one) makes
one current that the server has known since long before, and takes none away that somebody may hold: nobody waits.
What a Secret in the cluster holds is kept; only what is missing is made.
*/}}
{{- define "headrace.generated" -}}
{{- $root := .root -}}
{{- if not (hasKey $root.Release "headrace") -}}
{{- $_ := set $root.Release "headrace" dict -}}
{{- end -}}
{{- $made := $root.Release.headrace -}}
{{- if not (hasKey $made .secret) -}}
{{- $there := lookup "v1" "Secret" $root.Release.Namespace .secret -}}
{{- $data := ($there | default dict).data | default dict -}}
{{- $generation := int .generation -}}
{{- if and $data (not (hasKey $data (printf "secret-%d" $generation))) -}}
{{- fail (printf "%s is %d, but the Secret %s in %s knows %s only: change it by one at a time, so that the server knows the new one before anybody uses it" .value $generation .secret $root.Release.Namespace (keys $data | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $secrets := dict -}}
{{- range $number := list (sub $generation 1) $generation (add $generation 1) -}}
{{- if ge (int $number) 1 -}}
{{- $key := printf "secret-%d" (int $number) -}}
{{- $_ := set $secrets $key (index $data $key | default (randAlphaNum 40 | b64enc)) -}}
{{- end -}}
{{- end -}}
{{- range .besides -}}
{{- $_ := set $secrets . (index $data . | default (randAlphaNum 40 | b64enc)) -}}
{{- end -}}
{{- $_ := set $made .secret $secrets -}}
{{- end -}}
{{- index $made .secret | toYaml -}}
{{- end -}}

{{- define "headrace.postgresql.secrets" -}}
{{- include "headrace.generated" (dict "root" . "secret" "headrace-postgresql" "generation" .Values.postgresql.passwordGeneration "value" "postgresql.passwordGeneration") -}}
{{- end -}}

{{- define "headrace.s3.secrets" -}}
{{- include "headrace.generated" (dict "root" . "secret" "headrace-s3" "generation" .Values.s3.keyGeneration "value" "s3.keyGeneration" "besides" (list "root")) -}}
{{- end -}}

{{/* The database's address with the current password. */}}
{{- define "headrace.postgresql.uri" -}}
{{- $number := int .Values.postgresql.passwordGeneration -}}
{{- $secret := index (include "headrace.postgresql.secrets" . | fromYaml) (printf "secret-%d" $number) | b64dec -}}
postgresql+psycopg2://mlflow_{{ $number }}:{{ $secret }}@headrace-postgresql.{{ .Release.Namespace }}.svc:5432/mlflow
{{- end -}}

{{/* Keys of the store for pods, as the data of a Secret; empty where there are none to give. */}}
{{- define "headrace.store.data" -}}
{{- if .Values.s3.enabled -}}
{{- $number := int .Values.s3.keyGeneration -}}
AWS_ACCESS_KEY_ID: {{ printf "headrace-%d" $number | b64enc }}
AWS_SECRET_ACCESS_KEY: {{ index (include "headrace.s3.secrets" . | fromYaml) (printf "secret-%d" $number) }}
AWS_ENDPOINT_URL: {{ include "headrace.s3.endpoint" . | b64enc }}
AWS_REGION: {{ .Values.s3.region | b64enc }}
{{- else -}}
{{- with include "headrace.copied" (dict "root" . "secret" .Values.s3.external.existingSecret "keys" (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY")) -}}
{{ . }}
AWS_REGION: {{ $.Values.s3.region | b64enc }}
{{- with include "headrace.s3.endpoint" $ }}
AWS_ENDPOINT_URL: {{ . | b64enc }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Those of KEYS that a Secret of yours in the release's namespace has, as data; empty where no cluster answers. */}}
{{- define "headrace.copied" -}}
{{- $data := ((lookup "v1" "Secret" .root.Release.Namespace .secret) | default dict).data | default dict -}}
{{- $kept := dict -}}
{{- range .keys -}}
{{- if hasKey $data . -}}{{- $_ := set $kept . (index $data .) -}}{{- end -}}
{{- end -}}
{{- with $kept -}}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/*
What is wrong with the Secret of yours that VALUE names, in a sentence: it is not in the release's namespace, or has not
all of any list of KEYS. Empty where nothing is wrong.
*/}}
{{- define "headrace.secretFault" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $there := lookup "v1" "Secret" $namespace .secret -}}
{{- $data := ($there | default dict).data | default dict -}}
{{- $whole := false -}}
{{- $wanted := list -}}
{{- range .keys -}}
{{- $lacking := . -}}
{{- range $key, $_ := $data -}}{{- $lacking = without $lacking $key -}}{{- end -}}
{{- $whole = or $whole (not $lacking) -}}
{{- $wanted = append $wanted (join " and " .) -}}
{{- end -}}
{{- if not $there -}}
{{ .value }} is {{ .secret }}, but there is no such Secret in {{ $namespace }}: kubectl create secret generic {{ .secret }} -n {{ $namespace }} --from-literal={{ first .keys | join "=... --from-literal=" }}=...
{{- else if not $whole -}}
{{ .value }} is {{ .secret }}, but that Secret in {{ $namespace }} must have {{ join ", or " $wanted }}; it has {{ keys $data | sortAlpha | join ", " | default "nothing" }}
{{- end -}}
{{- end -}}

{{/* A hash of what a Secret of yours holds, so that an upgrade after its change restarts who reads it. */}}
{{- define "headrace.checksum" -}}
{{- with lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- toJson .data | sha256sum -}}
{{- end -}}
{{- end -}}
