//! What is fuzzed: everything that reads what somebody else wrote.
//!
//! A target is a function of bytes that panics where a property does not hold. The same functions are run by libFuzzer
//! (`fuzz_targets/`), and by the suite of the main workspace, over the inputs that are kept in `corpus/`.
//!
//! | module | targets |
//! |---|---|
//! | `http1` | request heads, response heads, bodies, PROXY heads |
//! | `paths` | the normal form of paths, cache keys, cursors of pages |
//! | `directives` | `Cache-Control`, targeted fields and groups |
//! | `selection` | `Vary`, ranges, parts, multipart bodies, validators |
//! | `verdicts` | what is decided of a request and its answer |
//! | `events` | ingested bodies, templates |
//! | `stored` | what stands in queues and files, and what roles tell each other |
//! | `settings` | configuration |

pub mod directives;
pub mod events;
pub mod http1;
mod input;
pub mod paths;
pub mod selection;
pub mod settings;
pub mod stored;
pub mod verdicts;

/// A target: its name, which is that of its corpus and of its binary, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("body", http1::body),
    ("cache_control", directives::cache_control),
    ("changes", stored::changes),
    ("config", settings::config),
    ("cursor", paths::cursor),
    ("frame", stored::frame),
    ("ingest", events::ingest),
    ("key", paths::key),
    ("key_state", stored::key_state),
    ("multipart", selection::multipart),
    ("path", paths::path),
    ("proxy_head", http1::proxy_head),
    ("queue_wire", stored::queue_wire),
    ("ranges", selection::ranges),
    ("request_head", http1::request_head),
    ("response_head", http1::response_head),
    ("targeted", directives::targeted),
    ("template", events::template),
    ("validators", selection::validators),
    ("vary", selection::vary),
    ("verdicts", verdicts::verdicts),
];
