//! Where a request comes from. A proxy tells in `X-Forwarded-For`, and so can anybody; it is believed only
//! from the proxies that the configuration names.

use std::net::{IpAddr, SocketAddr};

use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// The other end of the connection, among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The address of the caller; `None` where there was no connection, in tests of the routes alone.
pub(crate) fn of(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let Peer(peer) = extensions.get::<Peer>()?;
    Some(caller(peer.ip(), headers, trusted))
}

/// Walks back from the connection: as long as who speaks is a trusted proxy, the last address it added is
/// believed. What stands further left came from a stranger.
fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut at = peer.to_canonical();
    if !is_trusted(at) {
        return at;
    }
    let values = headers.get_all("x-forwarded-for").iter().rev();
    let hops = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        let Some(address) = str::from_utf8(hop).ok().and_then(parse) else { return at };
        at = address;
        if !is_trusted(at) {
            return at;
        }
    }
    at
}

/// `10.0.0.1`, `10.0.0.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        caller(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn strangers_are_not_believed() {
        assert_eq!(seen("203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9", &[]), "203.0.113.9");
    }

    #[test]
    fn a_trusted_proxy_is_believed_for_what_it_added_itself() {
        assert_eq!(seen("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 203.0.113.9"]),
            "203.0.113.9",
            "the left one is the stranger's own word"
        );
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"]), "203.0.113.9", "two proxies");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1", "203.0.113.9"]), "203.0.113.9", "two headers are one list");
        assert_eq!(seen("::1", &["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(seen("::ffff:10.0.0.1", &["203.0.113.9:80"]), "203.0.113.9");
    }

    #[test]
    fn nonsense_ends_the_walk() {
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, unknown"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, "]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }
}
