//! A NATS server as a child process, with the configuration of the examples, ended by the id it was started with.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A running server. Killed when dropped.
pub struct NatsServer {
    child: Child,
}

impl NatsServer {
    /// Starts it in `dir` at `address`, with the configuration file `config` there, and waits until it is ready.
    pub fn start(dir: &Path, config: &str, address: SocketAddr) -> NatsServer {
        let child = Command::new(program())
            .args(["--config", config, "--addr", &address.ip().to_string(), "--port", &address.port().to_string()])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut server = NatsServer { child };
        let mut lines = BufReader::new(server.child.stderr.take().expect("piped")).lines();
        let mut said = Vec::new();
        for line in lines.by_ref().map_while(Result::ok) {
            let is_ready = line.ends_with("Server is ready");
            said.push(line);
            if is_ready {
                // What it says later must not block it.
                std::thread::spawn(move || lines.for_each(drop));
                return server;
            }
        }
        panic!("the NATS server did not become ready:\n{}", said.join("\n"))
    }

    /// Sends a signal by name, as in `"STOP"`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("the command kill exists").success(), "SIG{name} could not be sent");
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone. It must not have ended by itself.
    pub fn kill9(&mut self) {
        let ended = self.child.try_wait().expect("it can be waited for");
        assert!(ended.is_none(), "it has ended by itself: {ended:?}");
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's program, brought if it is not here.
fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/nats-server");
        let told = Command::new(tool).stderr(Stdio::inherit()).output().expect("tools/nats-server runs");
        assert!(told.status.success(), "tools/nats-server has failed");
        PathBuf::from(String::from_utf8(told.stdout).expect("a path").trim())
    };
    PROGRAM.get_or_init(find).clone()
}
