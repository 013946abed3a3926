//! A disk of its own for one folder, which can be full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder in memory, of limited size. Gone when dropped.
pub struct Disk {
    at: PathBuf,
}

/// What fills it.
const FILLER: &str = "filler";

impl Disk {
    /// Mounts one of `mebibytes` at `at`; fails, in words, where that is not permitted.
    pub fn mount(at: &Path, mebibytes: usize) -> Result<Disk, String> {
        std::fs::create_dir_all(at).expect("the folder can be made");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        let mounted = mounted.map_err(|error| format!("no command mount: {error}"))?;
        if !mounted.status.success() {
            return Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned());
        }
        Ok(Disk { at: at.to_owned() })
    }

    /// Takes all that is left of it: whoever writes more is told that there is no space (`ENOSPC`).
    pub fn fill(&self) {
        let mut filler = File::create(self.at.join(FILLER)).expect("a name takes no space");
        // Ever smaller, down to what may be left of the last page.
        for size in [1 << 20, 4 << 10, 1] {
            let piece = vec![0; size];
            while filler.write_all(&piece).is_ok() {}
        }
    }

    /// Gives back what was taken.
    pub fn free(&self) {
        std::fs::remove_file(self.at.join(FILLER)).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until the end.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
