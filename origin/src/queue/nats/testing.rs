//! A NATS server of a test's own: in a temporary folder, on a free port, ended by its id.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::{NatsSettings, Servers};

/// A running server. Killed when dropped.
pub struct NatsServer {
    dir: TempDir,
    running: Mutex<Option<Child>>,
    port: u16,
}

impl NatsServer {
    /// With more lines in its configuration.
    pub fn start(lines: &[&str]) -> NatsServer {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = dir.path().join("store");
        let mut config = format!(
            "jetstream {{ store_dir: {:?}, sync_interval: always, max_file_store: 64GB }}\n",
            store.display().to_string()
        );
        lines.iter().for_each(|line| config += &format!("{line}\n"));
        std::fs::write(dir.path().join("nats.conf"), config).expect("the folder can be written");
        let (child, port) = spawn(&program(), dir.path(), 0);
        NatsServer { dir, running: Mutex::new(Some(child)), port }
    }

    pub fn settings(&self, event_queues: u16) -> NatsSettings {
        NatsSettings {
            servers: Servers { urls: vec![self.url()], credentials: None, ca: None },
            pond: "test".to_owned(),
            replicas: 1,
            event_queues,
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill9(&self) {
        let mut child = self.running.lock().take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// Starts it again, at the same port, with what it has stored.
    pub fn revive(&self) {
        let (child, _) = spawn(&program(), self.dir.path(), self.port);
        *self.running.lock() = Some(child);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The server's program, brought if it is not here.
pub fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/nats-server");
        let told = Command::new(tool).stderr(Stdio::inherit()).output().expect("tools/nats-server runs");
        assert!(told.status.success(), "tools/nats-server has failed");
        PathBuf::from(String::from_utf8(told.stdout).expect("a path").trim())
    };
    PROGRAM.get_or_init(find).clone()
}

/// Starts a server and waits until it takes connections; its port, where 0 asks for a free one.
pub fn spawn(program: &Path, dir: &Path, port: u16) -> (Child, u16) {
    let port = if port == 0 { "-1".to_owned() } else { port.to_string() };
    let mut child = Command::new(program)
        .args(["--config", "nats.conf", "--addr", "127.0.0.1", "--port", &port])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (mut said, mut listens, mut is_ready) = (Vec::new(), None, false);
    for line in lines.by_ref().map_while(Result::ok) {
        let address = line.split_once("Listening for client connections on ").map(|(_, address)| address.to_owned());
        listens = listens.or(address.and_then(|address| address.rsplit(':').next()?.parse().ok()));
        is_ready = line.ends_with("Server is ready");
        said.push(line);
        if is_ready {
            break;
        }
    }
    if let (true, Some(port)) = (is_ready, listens) {
        // What it says later must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        return (child, port);
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("the NATS server did not become ready:\n{}", said.join("\n"))
}
