//! The settings that concern strangers: TLS, proxies whose word is taken, pages of other origins.

use std::path::PathBuf;

use embeddery_server::IpNet;
use serde::Deserialize;

use super::resolve::Found;

/// The section `tls` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub certificate_file: Option<String>,
    pub key_file: Option<String>,
}

/// Certificate and key.
pub(super) fn tls(found: &mut Found<'_>, written: Tls) -> Option<(PathBuf, PathBuf)> {
    let file = |variable, written: Option<String>| {
        found.environment.get(variable).map(str::to_owned).or(written).filter(|path| !path.is_empty())
    };
    let certificate = file("EMBEDDINGS_TLS_CERT_FILE", written.certificate_file);
    let key = file("EMBEDDINGS_TLS_KEY_FILE", written.key_file);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => {
            found.problem(
                "tls.certificate_file and tls.key_file: one is set without the other; set both or none"
                    .into(),
            );
            None
        }
    }
}

/// The proxies whose word is taken for where a request comes from.
pub(super) fn trusted_proxies(found: &mut Found<'_>, written: Option<Vec<String>>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in written.unwrap_or_default() {
        let network = text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        match network {
            Some(network) => networks.push(network),
            None => found.problem(format!(
                "server.trusted_proxies: '{text}' is neither an address nor a network; write 10.0.0.7 or 10.0.0.0/8"
            )),
        }
    }
    networks
}

/// The origins whose pages may call the API.
pub(super) fn cors_origins(found: &mut Found<'_>, written: Option<Vec<String>>) -> Vec<String> {
    let origins = written.unwrap_or_default();
    for origin in &origins {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let good = host.is_some_and(|host| {
            !host.is_empty() && !host.contains('/') && host.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if origin != "*" && !good {
            found.problem(format!(
                "server.cors_origins: '{origin}' is no origin; write https://app.example.com, without a path"
            ));
        }
    }
    origins
}
