//! Where traces go: OpenTelemetry's own variables, under their own names.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::reader::SettingReader;

/// OpenTelemetry's variables.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TracesSection {
    endpoint: Option<String>,
    traces_endpoint: Option<String>,
    protocol: Option<String>,
    headers: Option<SecretString>,
    service: Option<String>,
}

/// Where traces go.
#[derive(Clone, Debug)]
pub(crate) struct TracesConfig {
    /// The collector's address for traces.
    pub(crate) url: String,
    /// What it wants to see with them; may hold a secret.
    pub(crate) headers: Vec<(String, SecretString)>,
    /// What this process is called there.
    pub(crate) service: String,
}

/// `None`: traces are not collected.
pub(super) fn resolve(reader: &mut SettingReader, section: TracesSection) -> Option<TracesConfig> {
    let base = section.endpoint.map(|base| format!("{}/v1/traces", base.trim_end_matches('/')));
    let url = section.traces_endpoint.or(base)?;
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        // The value is not shown: it may hold a password.
        reader.problem(
            "OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http:// or https://; write for example http://collector:4318",
        );
    }
    if let Some(other) = section.protocol.filter(|protocol| protocol != "http/json") {
        reader.problem(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL: '{other}' is not spoken here; leave it out or write http/json, and use the collector's HTTP port, usually 4318"
        ));
    }
    let mut headers = Vec::new();
    let written = section.headers.unwrap_or_default();
    for pair in written.expose_secret().split(',').filter(|pair| !pair.trim().is_empty()) {
        match pair.split_once('=') {
            Some((name, value)) => {
                headers.push((name.trim().to_owned(), SecretString::from(value.trim().to_owned())));
            }
            None => {
                reader.problem("OTEL_EXPORTER_OTLP_HEADERS: a part has no '='; write name=value,name=value");
            }
        }
    }
    Some(TracesConfig { url, headers, service: section.service.unwrap_or_else(|| "embeddery".into()) })
}

#[cfg(test)]
mod tests {
    use crate::config::tests_support::resolved;

    #[test]
    fn opentelemetrys_variables_mean_what_they_mean_elsewhere() {
        let url =
            |variables: &[(&str, &str)]| resolved("", variables).unwrap().traces.map(|traces| traces.url);
        assert_eq!(url(&[]), None);
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        assert_eq!(url(&[base]).as_deref(), Some("http://collector:4318/v1/traces"));
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/x");
        assert_eq!(url(&[base, whole]).as_deref(), Some("https://traces/x"));
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
        ] {
            let problems = resolved("", &[base, (variable, value)]).err().unwrap().0;
            assert!(problems.len() == 1 && problems[0].starts_with(variable), "{problems:?}");
        }
    }
}
