//! Where the page is, as people type it.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

/// The address to type into a browser.
///
/// # Errors
/// A listener whose own address cannot be asked.
pub fn url(listener: &TcpListener) -> std::io::Result<String> {
    Ok(format!("http://{}/", listener.local_addr()?))
}

/// An address that others can use: a listener on all addresses is reached by the one that leads out or, while none does,
/// by this machine's name in its home.
pub(super) fn reachable(
    address: SocketAddr,
    own: Option<IpAddr>,
    names: &[String],
) -> Option<String> {
    if !address.ip().is_unspecified() {
        return Some(address.to_string());
    }
    let port = address.port();
    let name = || names.iter().find(|name| name.ends_with(".local"));
    match own {
        Some(own) => Some(SocketAddr::new(own, port).to_string()),
        None => name().map(|name| format!("{name}:{port}")),
    }
}

/// This machine's address on the network. Connecting a UDP socket sends nothing; it asks the kernel which address it would
/// use (192.0.2.1: RFC 5737).
pub(super) fn leads_out() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_named_as_others_reach_it() {
        let names = ["localhost".to_owned(), "kitchen.local".to_owned(), "kitchen".to_owned()];
        let own = Some(IpAddr::from([192, 168, 1, 7]));
        let shown = |listener: &str, own, names: &[String]| {
            reachable(listener.parse().expect("an address"), own, names)
        };
        for (listener, own, expected) in [
            ("192.168.1.20:8443", None, "192.168.1.20:8443"),
            ("0.0.0.0:8443", own, "192.168.1.7:8443"),
            ("[::]:8443", own, "192.168.1.7:8443"),
            ("0.0.0.0:8443", None, "kitchen.local:8443"),
        ] {
            assert_eq!(shown(listener, own, &names).as_deref(), Some(expected), "{listener}");
        }
        assert_eq!(shown("0.0.0.0:8443", None, &names[..1]), None, "no name either");
    }
}
