//! The settings that concern callers from elsewhere: TLS, trusted proxies, pages of other origins.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use embeddery_server::IpNet;
use serde::Deserialize;

use super::{reader::SettingReader, units::filled};

/// The section `tls`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsSection {
    #[serde(deserialize_with = "filled")]
    certificate_file: Option<PathBuf>,
    #[serde(deserialize_with = "filled")]
    key_file: Option<PathBuf>,
}

/// Certificate and key.
pub(super) fn tls(reader: &mut SettingReader, section: TlsSection) -> Option<(PathBuf, PathBuf)> {
    if section.certificate_file.is_some() != section.key_file.is_some() {
        reader
            .problem("tls.certificate_file and tls.key_file: one is set without the other; set both or none");
    }
    section.certificate_file.zip(section.key_file)
}

/// A network, or an address as a network of one.
#[derive(Clone)]
pub(super) struct Network(pub(super) IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.map(Self).ok_or_else(|| {
            format!("'{text}' is neither an address nor a network; write 10.0.0.7 or 10.0.0.0/8")
        })
    }
}

/// An origin whose pages may call the API; `*`: any.
#[derive(Clone)]
pub(super) struct Origin(pub(super) String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_origin = host.is_some_and(|host| {
            !host.is_empty() && !host.contains('/') && host.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if text == "*" || is_origin {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("'{text}' is not an origin; write https://app.example.com, without a path"))
        }
    }
}
