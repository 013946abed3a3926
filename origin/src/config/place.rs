//! Secrets are in places of their own: configuration files are copied and shown around.

use std::io::Read;
use std::path::Path;

/// Largest file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 4096;

/// The text that is at `env:NAME`, or in `file:PATH`, named from `folder`. The error says what is wrong, and nothing of the
/// text.
pub fn read(place: &str, folder: &Path) -> Result<String, String> {
    if let Some(name) = place.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| format!("the environment variable {name} is not set, or is no text"));
    }
    let Some(path) = place.strip_prefix("file:") else {
        return Err("names no place: a secret is in an environment variable or a file of its own".to_owned());
    };
    let path = folder.join(path);
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_from_the_folder_and_what_is_no_place_is_told() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("secret"), "text").expect("written");
        assert_eq!(read("file:secret", dir.path()), Ok("text".to_owned()));
        for (place, told) in [
            ("file:nothing", "nothing: "),
            ("env:MILLPOND_THERE_IS_NO_SUCH_VARIABLE", "MILLPOND_THERE_IS_NO_SUCH_VARIABLE is not set"),
            ("secret", "names no place"),
        ] {
            let problem = read(place, dir.path()).expect_err(place);
            assert!(problem.contains(told), "{problem}");
        }
    }
}
