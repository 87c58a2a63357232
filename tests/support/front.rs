//! A real nginx in front of several replicas of an authority, as a fleet has one: whoever asks knows one address.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::{
    Answer, World,
    authority::{Authority, Client, exchange_at},
    free_port,
    openid::AUDIENCE,
    postgres::Postgres,
    process::Daemon,
};

/// Two replicas over one database, behind a front with the name that both go by.
pub(crate) struct Fleet {
    /// The replicas.
    pub(crate) replicas: [Authority; 2],
    port: u16,
    _front: Front,
}

impl Fleet {
    /// Starts one that knows `client`, with `change` made to its configuration; `None` where a part is missing.
    pub(crate) fn start(
        world: &World,
        postgres: &Postgres,
        client: &Client,
        change: impl FnOnce(&Path, &mut Value),
    ) -> Option<Self> {
        let port = free_port();
        let one = Authority::start_with(&world.openid, &[client], |directory, config| {
            postgres.keep(directory, config);
            config["authority"]["issuer"] = json!(format!("http://127.0.0.1:{port}"));
            change(directory, config);
        });
        let other = one.replica();
        let front = Front::start(port, &[one.port(), other.port()])?;
        Some(Self { replicas: [one, other], port, _front: front })
    }

    /// Alice's token for her task is asked for by `client` at the one address.
    pub(crate) fn exchange(&self, world: &World, client: &Client) -> Answer {
        exchange(world, self.port, &self.replicas[0].issuer(), client)
    }

    /// The same for whoever knows only the address and the name.
    pub(crate) fn door(&self) -> (u16, String) {
        (self.port, self.replicas[0].issuer())
    }
}

/// Alice's token for her task is asked for by `client` at whatever listens on `port` under the name `issuer`.
pub(crate) fn exchange(world: &World, port: u16, issuer: &str, client: &Client) -> Answer {
    let assertion = client.assertion(issuer, &Value::Null);
    let asked = [("task_id", "ticket-1"), ("audience", AUDIENCE)];
    exchange_at(port, &assertion, &world.openid.user("alice"), &asked)
}

/// A running nginx, gone with the value.
struct Front {
    _daemon: Daemon,
    _directory: tempfile::TempDir,
}

impl Front {
    /// Listens on `port` and hands each request to one of the `replicas` that answers; `None` (said aloud) where nginx
    /// is not installed.
    fn start(port: u16, replicas: &[u16]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let servers: String = replicas.iter().map(|port| format!("server 127.0.0.1:{port} max_fails=0;")).collect();
        let path = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {path}/{kind};"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log stderr;
             events {{}}
             http {{
                 access_log off; {temporary}
                 upstream replicas {{ {servers} }}
                 server {{
                     listen 127.0.0.1:{port};
                     location / {{ proxy_pass http://replicas; proxy_set_header Host $http_host; }}
                 }}
             }}"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
        if Command::new("nginx").arg("-v").output().is_err() {
            super::skipped("nginx", "it is not installed: apt-get install nginx");
            return None;
        }
        let daemon = Daemon::start(&mut command, &directory.path().join("nginx.log"));
        super::eventually("nginx to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Some(Self { _daemon: daemon, _directory: directory })
    }
}
