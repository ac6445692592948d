//! The client's IP address. `X-Forwarded-For` counts only if a proxy that the configuration trusts has sent it, because
//! any client can send the header.

use std::net::{IpAddr, SocketAddr};

use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// The remote address of the connection, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The address of the client. `None` if the request did not arrive over a connection, as in tests of single routes.
pub(crate) fn from_request(
    extensions: &Extensions,
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let Peer(peer) = extensions.get::<Peer>()?;
    Some(client_ip(peer.ip(), headers, trusted))
}

/// The rightmost address that is not a trusted proxy. Each proxy appends the address of its peer, so the search begins
/// at the connection and goes left. Addresses further left were sent by the client and prove nothing.
fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let values = headers.get_all("x-forwarded-for").iter().rev();
    let hops = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        let Some(address) = str::from_utf8(hop).ok().and_then(parse) else { return client };
        client = address;
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// Parses `10.0.0.1`, `10.0.0.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        client_ip(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_header_of_an_untrusted_peer_is_ignored() {
        assert_eq!(resolve("203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
        assert_eq!(resolve("203.0.113.9", &[]), "203.0.113.9");
    }

    #[test]
    fn only_the_address_that_a_trusted_proxy_appended_counts() {
        assert_eq!(resolve("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            resolve("10.0.0.1", &["1.1.1.1, 203.0.113.9"]),
            "203.0.113.9",
            "the left address was sent by the client"
        );
        assert_eq!(resolve("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"]), "203.0.113.9", "two proxies");
        assert_eq!(
            resolve("10.0.0.1", &["1.1.1.1", "203.0.113.9"]),
            "203.0.113.9",
            "two headers are one list"
        );
        assert_eq!(resolve("::1", &["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(resolve("::ffff:10.0.0.1", &["203.0.113.9:80"]), "203.0.113.9");
    }

    #[test]
    fn an_invalid_address_ends_the_search() {
        assert_eq!(resolve("10.0.0.1", &["203.0.113.9, unknown"]), "10.0.0.1");
        assert_eq!(resolve("10.0.0.1", &["203.0.113.9, "]), "10.0.0.1");
        assert_eq!(resolve("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }
}
