{{/* Names, labels, and what all pods have in common. */}}
{{- define "embeddery.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "embeddery.selector" -}}
app.kubernetes.io/name: embeddery
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "embeddery.labels" -}}
{{ include "embeddery.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "embeddery.redisUrl" -}}
{{- if .Values.redis.url }}{{ .Values.redis.url }}{{ else if .Values.redis.enabled }}redis://{{ include "embeddery.name" . }}-redis:6379{{ end }}
{{- end }}

{{/* Mistakes that would only show when pods crash or lose work. */}}
{{- define "embeddery.check" -}}
{{- if not .Values.secretName }}{{ fail "secretName: name a secret that holds SINGLE_USER_API_KEY or JWT_SECRET_KEY" }}{{ end }}
{{- $queue := or (include "embeddery.redisUrl" .) .Values.redis.urlSecret.name }}
{{- if and (or .Values.orchestrator.enabled .Values.worker.enabled) (not $queue) }}{{ fail "orchestrator and worker need redis.enabled, redis.url or redis.urlSecret.name" }}{{ end }}
{{- $several := or .Values.api.autoscaling.enabled (gt (int .Values.api.replicas) 1) .Values.orchestrator.enabled .Values.worker.enabled }}
{{- if and $several (not .Values.database.urlSecret.name) (ne .Values.persistence.data.accessMode "ReadWriteMany") }}{{ fail "several pods need database.urlSecret.name, or persistence.data.accessMode: ReadWriteMany" }}{{ end }}
{{- end }}

{{- define "embeddery.env" -}}
- name: EMBEDDINGS_LISTEN
  value: 0.0.0.0:8000
- name: EMBEDDINGS_CONFIG_PATH
  value: /etc/embeddery/embeddery.yaml
{{- with include "embeddery.redisUrl" . }}
- name: REDIS_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.redis.urlSecret }}{{ if .name }}
- name: REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}{{ end }}
{{- with .Values.database.urlSecret }}{{ if .name }}
- name: DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}{{ end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The pod of one component; `container` is what differs: args, ports, probes, resources. */}}
{{- define "embeddery.pod" -}}
metadata:
  labels:
    {{- include "embeddery.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ toYaml .root.Values.config | sha256sum }}
    {{- with .root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "embeddery.name" .root }}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: {{ .component }}
      image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      env:
        {{- include "embeddery.env" .root | nindent 8 }}
      envFrom:
        - secretRef: {name: {{ .root.Values.secretName }}}
      volumeMounts:
        - {name: config, mountPath: /etc/embeddery, readOnly: true}
        - {name: data, mountPath: /app/Databases/user_databases}
        - {name: models, mountPath: /app/models/embedding_models_data}
        - {name: tmp, mountPath: /tmp}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      {{- .container | nindent 6 }}
  volumes:
    - name: config
      configMap: {name: {{ include "embeddery.name" .root }}}
    - name: data
      persistentVolumeClaim: {claimName: {{ .root.Values.persistence.data.existingClaim | default (printf "%s-data" (include "embeddery.name" .root)) }}}
    - name: models
      persistentVolumeClaim: {claimName: {{ .root.Values.persistence.models.existingClaim | default (printf "%s-models" (include "embeddery.name" .root)) }}}
    - name: tmp
      emptyDir: {}
  {{- with .root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
