//! Where the page is, as people type it.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

/// The address to type into a browser.
///
/// # Errors
/// A listener whose own address cannot be asked.
pub fn url(listener: &TcpListener) -> std::io::Result<String> {
    Ok(format!("http://{}/", listener.local_addr()?))
}

/// Where the home network finds the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// The address to open now.
    pub address: String,
    /// This machine's name in its home, which stays when the number changes; beside the number only.
    pub name: Option<String>,
}

impl Reached {
    /// Address and name, for whoever types one of them.
    pub fn on_the_glass(&self) -> String {
        match &self.name {
            Some(name) => format!("{} or {name}", self.address),
            None => self.address.clone(),
        }
    }
}

/// This machine in its network.
pub(super) struct Own<'a> {
    /// The address that leads out, while one does.
    pub leads_out: Option<IpAddr>,
    /// Whether others can reach the listener at all.
    pub is_in_network: bool,
    /// See [`crate::access::certificate::names`].
    pub names: &'a [String],
}

/// How others reach a listener. One on all addresses is reached by the one that leads out or, while none does, by this machine's name in
/// its home; by none while it is in no network.
pub(super) fn reached(listener: SocketAddr, own: &Own) -> Option<Reached> {
    let open = |host: &str| format!("https://{host}/");
    if !listener.ip().is_unspecified() {
        return Some(Reached { address: open(&listener.to_string()), name: None });
    }
    let port = listener.port();
    let name = own.names.iter().find(|name| name.ends_with(".local"));
    let name = name.map(|name| open(&format!("{name}:{port}")));
    match own.leads_out {
        Some(number) => {
            let address = open(&SocketAddr::new(number, port).to_string());
            Some(Reached { address, name })
        }
        None => name.filter(|_| own.is_in_network).map(|address| Reached { address, name: None }),
    }
}

/// Whether another interface than the loopback has an address that a listener at this one serves.
pub(super) fn is_in_network(listener: SocketAddr) -> bool {
    if !listener.ip().is_unspecified() {
        return true;
    }
    // Where the kernel does not tell, nobody is told that there is none.
    let Ok(routes) = std::fs::read_to_string(ROUTES) else { return true };
    let addresses = match listener {
        SocketAddr::V4(_) => String::new(),
        SocketAddr::V6(_) => std::fs::read_to_string(ADDRESSES).unwrap_or_default(),
    };
    names_interface(&routes, &addresses)
}

/// IPv4 networks, the interface first in each line, beneath a line of titles.
const ROUTES: &str = "/proc/net/route";
/// IPv6 addresses, the interface last in each line.
const ADDRESSES: &str = "/proc/net/if_inet6";

fn names_interface(routes: &str, addresses: &str) -> bool {
    let routes = routes.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let addresses = addresses.lines().filter_map(|line| line.split_whitespace().last());
    routes.chain(addresses).any(|interface| interface != "lo")
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
        let number = Some(IpAddr::from([192, 168, 1, 7]));
        let shown = |listener: &str, leads_out, is_in_network, names: &[String]| {
            let own = Own { leads_out, is_in_network, names };
            let reached = reached(listener.parse().expect("an address"), &own)?;
            Some((reached.address, reached.name))
        };
        let name = "https://kitchen.local:8443/";
        for (listener, leads_out, address, beside) in [
            ("192.168.1.20:8443", None, "https://192.168.1.20:8443/", None),
            ("0.0.0.0:8443", number, "https://192.168.1.7:8443/", Some(name)),
            ("[::]:8443", number, "https://192.168.1.7:8443/", Some(name)),
            ("0.0.0.0:8443", None, name, None),
        ] {
            let expected = (address.to_owned(), beside.map(str::to_owned));
            assert_eq!(shown(listener, leads_out, true, &names), Some(expected), "{listener}");
        }
        assert_eq!(shown("0.0.0.0:8443", None, true, &names[..1]), None, "no name either");
        assert_eq!(shown("0.0.0.0:8443", None, false, &names), None, "nobody is there to use it");
    }

    #[test]
    fn the_loopback_alone_is_no_network() {
        let title = "Iface\tDestination\tGateway\n";
        let wired = format!("{title}end0\t0001A8C0\t00000000\n");
        let lo = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let link = format!("{lo}fe800000000000000000000000000001 02 40 20 80     end0\n");
        assert!(!names_interface(title, "") && !names_interface(title, lo));
        assert!(names_interface(&wired, lo) && names_interface(title, &link));
    }
}
