//! A broker inside the process, for demonstrations and tests. What it retains does not survive it, and it has no TLS:
//! a fleet runs mosquitto or a cluster.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long it may take to open its port.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a broker on a free port of this machine; it ends with the process.
///
/// # Errors
/// No free port, or a broker that does not start.
pub fn start() -> Result<SocketAddr> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr());
    let listen = free.context("no free port for the broker")?;
    let config: rumqttd::Config = toml::from_str(&settings(listen)).context("its settings")?;
    let mut broker = rumqttd::Broker::new(config);
    std::thread::Builder::new().name("broker".into()).spawn(move || {
        if let Err(error) = broker.start() {
            tracing::error!("the broker ended: {error}");
        }
    })?;
    let began = Instant::now();
    while TcpStream::connect(listen).is_err() {
        if began.elapsed() > PATIENCE {
            bail!("the broker inside the process did not open {listen}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(listen)
}

fn settings(listen: SocketAddr) -> String {
    format!(
        r#"
        id = 0
        [router]
        id = 0
        max_connections = 1000
        max_outgoing_packet_count = 200
        max_segment_size = 16777216
        max_segment_count = 10
        [v5.mirror]
        name = "mirror"
        listen = "{listen}"
        next_connection_delay_ms = 1
        [v5.mirror.connections]
        connection_timeout_ms = 10000
        max_payload_size = 131072
        max_inflight_count = 200
        dynamic_filters = true
        "#
    )
}
