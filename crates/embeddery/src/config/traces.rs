//! Where traces go: OpenTelemetry's own variables, under their own names.

use secrecy::SecretString;

use super::resolve::Found;

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
pub(super) fn resolve(found: &mut Found<'_>) -> Option<TracesConfig> {
    let whole = found.variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(str::to_owned);
    let base = found.variable("OTEL_EXPORTER_OTLP_ENDPOINT");
    let url = whole.or_else(|| base.map(|base| format!("{}/v1/traces", base.trim_end_matches('/'))))?;
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        found.problem(format!(
            "OTEL_EXPORTER_OTLP_ENDPOINT: '{url}' is not a URL; write for example http://collector:4318"
        ));
    }
    match found.variable("OTEL_EXPORTER_OTLP_PROTOCOL") {
        None | Some("http/json") => {}
        Some(other) => found.problem(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL: '{other}' is not spoken here; leave it out or write http/json, and use the collector's HTTP port, usually 4318"
        )),
    }
    let written = found.variable("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default();
    let mut headers = Vec::new();
    for pair in written.split(',').filter(|pair| !pair.trim().is_empty()) {
        match pair.split_once('=') {
            Some((name, value)) => {
                headers.push((name.trim().to_owned(), SecretString::from(value.trim().to_owned())));
            }
            None => found
                .problem("OTEL_EXPORTER_OTLP_HEADERS: a part has no '='; write name=value,name=value".into()),
        }
    }
    let service = found.variable("OTEL_SERVICE_NAME").unwrap_or("embeddery").to_owned();
    Some(TracesConfig { url, headers, service })
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
