//! How long the disk takes: what every figure about durable events hangs on.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use millpond_shared::clock;

use super::tally::{latencies, percentiles, record};
use crate::Failure;

/// Between two probes: rare enough not to be a load itself.
const PAUSE: Duration = Duration::from_millis(50);

/// Writes 4 KiB to a file in `folder` and syncs it, again and again, until told to stop; then tells how long it took.
pub fn start(folder: &Path, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<String, Failure>>, Failure> {
    let path = folder.join(format!(".millpond-probe-{}", std::process::id()));
    let opened = OpenOptions::new().create(true).truncate(true).write(true).open(&path);
    let mut file = opened.map_err(|error| Failure::Refused(format!("--probe: {}: {error}", path.display())))?;
    // It stays as long as it is open.
    std::fs::remove_file(&path).map_err(Failure::from_display)?;
    let stop = Arc::clone(stop);
    let probe = move || {
        let mut times = latencies()?;
        while !stop.load(Ordering::Acquire) {
            let mut write = || {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&[7; 4096])?;
                let began = clock::monotonic();
                file.sync_data()?;
                Ok::<_, std::io::Error>(began.elapsed())
            };
            record(&mut times, write().map_err(Failure::from_display)?);
            std::thread::sleep(PAUSE);
        }
        Ok(format!("fdatasync  {}\n", percentiles(&times)))
    };
    std::thread::Builder::new().name("probe".to_owned()).spawn(probe).map_err(Failure::from_display)
}
