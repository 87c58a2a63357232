//! How long a sidecar takes from its start until it takes calls: printed, never judged, because machines differ.

use std::time::Instant;

use crate::support::{http, sidecar::Setup, world};

#[test]
fn how_long_it_takes_to_be_ready_is_told() {
    let Some(world) = world() else { return };
    let mut times = Vec::new();
    for _ in 0..3 {
        let setup = Setup::new(&world.openid, &world.tool);
        let began = Instant::now();
        let mut sidecar = setup.start_unready();
        while std::net::TcpStream::connect(("127.0.0.1", sidecar.health_port())).is_err()
            || http::get(sidecar.health_port(), "/readyz").status != 200
        {
            assert!(sidecar.daemon.ended().is_none(), "{}", sidecar.daemon.output());
            assert!(began.elapsed() < crate::support::PATIENCE, "it does not become ready");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        times.push(began.elapsed());
        sidecar.stop();
    }
    println!("ready after {times:?}");
}
