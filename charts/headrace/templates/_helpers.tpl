{{/* Labels of every object. */}}
{{- define "headrace.labels" -}}
{{- $root := .root -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: headrace
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What pods of one component are found by; it never changes over upgrades. */}}
{{- define "headrace.selector" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The metadata of an object: name, namespace (of the release unless it is given), labels, annotations. */}}
{{- define "headrace.metadata" -}}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
name: {{ .name }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "headrace.labels" . | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's name. */}}
{{- define "headrace.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $repository := $image.repository -}}
{{- with .root.Values.global.imageRegistry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository ($image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* What the profile says, as YAML. */}}
{{- define "headrace.profile" -}}
{{- index (.Files.Get "files/profiles.yaml" | fromYaml) .Values.profile | toYaml -}}
{{- end -}}

{{/* How many pods a component has. */}}
{{- define "headrace.replicas" -}}
{{- $asked := (index .root.Values .component).replicas -}}
{{- if kindIs "invalid" $asked -}}
{{ index (include "headrace.profile" .root | fromYaml).replicas .component }}
{{- else -}}
{{ $asked }}
{{- end -}}
{{- end -}}

{{/* Requests and limits of a component. */}}
{{- define "headrace.resources" -}}
{{- $asked := (index .root.Values .component | default dict).resources -}}
{{- if $asked -}}
{{ toYaml $asked }}
{{- else -}}
{{ index (include "headrace.profile" .root | fromYaml) .component | toYaml }}
{{- end -}}
{{- end -}}

{{/* What people set for the pods of a component: `pods`, with the component's own `pod` over it. */}}
{{- define "headrace.pod" -}}
{{- $own := (index .root.Values .component | default dict).pod | default dict -}}
{{- $all := .root.Values.pods -}}
{{- $joined := mergeOverwrite (deepCopy $all) (omit $own "env") -}}
{{- $names := list -}}
{{- range $own.env -}}{{- $names = append $names .name -}}{{- end -}}
{{- $env := list -}}
{{- range $all.env -}}{{- if not (has .name $names) -}}{{- $env = append $env . -}}{{- end -}}{{- end -}}
{{- toYaml (set $joined "env" (concat $env ($own.env | default list))) -}}
{{- end -}}

{{/* The metadata of a pod template. No version stands in it: an upgrade restarts only what it changes. */}}
{{- define "headrace.podMetadata" -}}
{{- $pod := include "headrace.pod" . | fromYaml -}}
labels:
  {{- include "headrace.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: headrace
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) ($pod.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
What every pod has: who it runs as (`user`), where it may run. Restricted Pod Security takes it. Pods of a component with
several replicas spread over nodes unless told otherwise.
*/}}
{{- define "headrace.podSpec" -}}
{{- $pod := include "headrace.pod" . | fromYaml -}}
{{- $user := .user | default 65532 | int -}}
serviceAccountName: {{ .serviceAccount | default "default" }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $pod.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $pod.topologySpreadConstraints | nindent 2 }}
{{- else if .spread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "headrace.selector" . | nindent 8 }}
{{- end }}
{{- end -}}

{{/* What no container of ours may do. */}}
{{- define "headrace.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Environment variables that people set for a component. */}}
{{- define "headrace.env" -}}
{{- with (include "headrace.pod" . | fromYaml).env -}}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* The workspaces, as a YAML list. */}}
{{- define "headrace.workspaces" -}}
{{- .Values.workspaces | default (list .Release.Namespace) | toYaml -}}
{{- end -}}

{{/* "true" where a cluster answers; `helm template` and `helm lint` know groups and versions only, no kinds. */}}
{{- define "headrace.live" -}}
{{- if .Capabilities.APIVersions.Has "v1/Pod" -}}true{{- end -}}
{{- end -}}

{{/* The volume claim of a StatefulSet: it stays when the release goes, and when it is scaled down. */}}
{{- define "headrace.volumeClaim" -}}
persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
volumeClaimTemplates:
  - metadata:
      name: data
      labels:
        {{- include "headrace.selector" . | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests: {storage: {{ .persistence.size }}}
{{- end -}}

{{/* All pods of the workspaces, as one of the `from` of a NetworkPolicy. */}}
{{- define "headrace.from.workspaces" -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values:
        {{- include "headrace.workspaces" . | nindent 8 }}
{{- end -}}
