//! A real nginx in front of several replicas, as a fleet has one: whoever asks knows one address.

use std::{fs, process::Command};

use super::process::Daemon;

/// A running nginx, gone with the value.
pub(crate) struct Front {
    _daemon: Daemon,
    _directory: tempfile::TempDir,
}

impl Front {
    /// Listens on `port` and hands each request to one of the `replicas` that answers; `None` (said aloud) where nginx
    /// is not installed.
    pub(crate) fn start(port: u16, replicas: &[u16]) -> Option<Self> {
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
