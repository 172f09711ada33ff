{{/*
Who may log in: `mlflow_N`, one for each generation of the password, all of them members of `mlflow`, who owns
everything. The SQL may run again and again. Users of older generations may no longer log in.
*/}}
{{- define "headrace.postgresql.roles" -}}
{{- $names := list -}}
SET log_min_error_statement = panic; -- no password in a log
SELECT 'CREATE ROLE mlflow NOLOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mlflow') \gexec
SELECT 'CREATE DATABASE mlflow OWNER mlflow' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mlflow') \gexec
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
{{- range $key, $secret := include "headrace.postgresql.secrets" . | fromYaml -}}
{{- if hasPrefix "secret-" $key -}}
{{- $name := printf "mlflow_%s" (trimPrefix "secret-" $key) -}}
{{- $names = append $names (squote $name) }}
SELECT 'CREATE ROLE {{ $name }} IN ROLE mlflow' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{ $name }}') \gexec
ALTER ROLE {{ $name }} LOGIN PASSWORD '{{ b64dec $secret }}';
ALTER ROLE {{ $name }} SET role = 'mlflow';
{{- end -}}
{{- end }}
SELECT format('ALTER ROLE %I NOLOGIN', rolname) FROM pg_roles
  WHERE rolname ~ '^mlflow_[0-9]+$' AND rolcanlogin AND rolname NOT IN ({{ join ", " $names }}) \gexec
{{- end -}}
