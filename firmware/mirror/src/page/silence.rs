//! Browsers that vanish (a closed laptop, a lost network) say no farewell: their connections must end all the same.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// A connection whose other end acknowledges nothing for this long, or takes nothing, is ended.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// While nothing is sent, the other end is asked this often whether it is there.
const ASKED: Duration = Duration::from_secs(5);

/// Lets the kernel end a connection with nobody at its other end.
///
/// # Errors
/// Only for what is no TCP connection.
pub fn ends(connection: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_keepalive(&connection, true)?;
    sockopt::set_tcp_keepidle(&connection, ASKED)?;
    sockopt::set_tcp_keepintvl(&connection, ASKED)?;
    // It also takes the place of a number of unanswered questions; see tcp(7).
    sockopt::set_tcp_user_timeout(&connection, PATIENCE.as_millis() as u32)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn silence_ends_an_accepted_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let _browser = TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
        let (connection, _) = listener.accept().expect("a connection");
        ends(&connection).expect("a TCP connection");
        assert_eq!(sockopt::socket_keepalive(&connection), Ok(true));
        assert_eq!(sockopt::tcp_keepidle(&connection), Ok(ASKED));
        assert_eq!(sockopt::tcp_user_timeout(&connection), Ok(20_000));
        assert!(ends(UdpSocket::bind("127.0.0.1:0").expect("a free port")).is_err());
    }
}
