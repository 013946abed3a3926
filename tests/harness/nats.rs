//! A NATS server as a child process, with the configuration of the examples, ended by the id it was started with.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use futures_util::StreamExt;

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

/// Stores the last message of each subject of a stream once more, as somebody would who did not hear that it is stored,
/// and looks at no fence; how many. One that another message came behind meanwhile is left alone.
pub fn repeat_last_of_each_subject(server: SocketAddr, stream: &str) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(server.to_string()).await.expect("the server runs");
        let jetstream = async_nats::jetstream::new(client);
        let stream = jetstream.get_stream(stream).await.expect("there is such a stream");
        let mut subjects = stream.info_with_subjects(">").await.expect("the server runs");
        let mut repeated = 0;
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.expect("a subject");
            let last = stream.get_last_raw_message_by_subject(&subject).await.expect("it has a message");
            let mut headers = last.headers;
            headers.insert("Nats-Expected-Last-Subject-Sequence", last.sequence.to_string().as_str());
            let sent = jetstream.publish_with_headers(subject, headers, last.payload).await.expect("the server runs");
            repeated += usize::from(sent.await.is_ok());
        }
        repeated
    })
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
