//! Reads a trace: CSV with the header `time,key_hash,size` and perhaps `ttl`, plain or gzip.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use millpond_proxy::cache::{Request, TimeToLive};

use crate::Failure;

/// A whole trace, its keys kept once each.
#[derive(Debug, Default)]
pub struct Trace {
    keys: Vec<Box<str>>,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    time: u64,
    key: u32,
    size: u64,
    lifetime: Option<u64>,
}

impl Trace {
    pub fn read(path: &Path) -> Result<Trace, Failure> {
        let failed = |problem: String| Failure::Failed(format!("{}: {problem}", path.display()));
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let text: Box<dyn Read> = match path.extension().is_some_and(|extension| extension == "gz") {
            true => Box::new(MultiGzDecoder::new(BufReader::new(file))),
            false => Box::new(file),
        };
        Trace::parse(BufReader::new(text)).map_err(failed)
    }

    /// The error names the line.
    fn parse(text: impl BufRead) -> Result<Trace, String> {
        let mut lines = (1_u64..).zip(text.lines());
        let header = match lines.next() {
            Some((_, Ok(header))) => header,
            Some((_, Err(error))) => return Err(format!("line 1: {error}")),
            None => return Err("line 1: the header is missing".to_owned()),
        };
        let has_ttl = match header.trim_end() {
            "time,key_hash,size" => false,
            "time,key_hash,size,ttl" => true,
            _ => return Err("line 1: the header is not time,key_hash,size or time,key_hash,size,ttl".to_owned()),
        };
        let (mut trace, mut numbers) = (Trace::default(), HashMap::new());
        for (number, line) in lines {
            let at_line = |problem: String| format!("line {number}: {problem}");
            let line = line.map_err(|error| at_line(error.to_string()))?;
            trace.add(line.trim_end(), has_ttl, &mut numbers).map_err(at_line)?;
        }
        Ok(trace)
    }

    fn add(&mut self, line: &str, has_ttl: bool, numbers: &mut HashMap<Box<str>, u32>) -> Result<(), String> {
        let columns: Vec<&str> = line.split(',').collect();
        let (time, key, size, ttl) = match (columns.as_slice(), has_ttl) {
            ([time, key, size], false) => (time, key, size, None),
            ([time, key, size, ttl], true) => (time, key, size, Some(*ttl)),
            _ => return Err(format!("{} columns where the header has {}", columns.len(), 3 + usize::from(has_ttl))),
        };
        let whole = |name: &str, digits: &str| {
            digits.parse::<u64>().map_err(|_| format!("{name} `{digits}` is not a whole number"))
        };
        // Times may have a fraction; lifetimes are counted in whole units.
        let (units, fraction) = time.split_once('.').unwrap_or((time, "0"));
        whole("time", fraction).and(whole("time", units)).map_err(|_| format!("time `{time}` is not a number"))?;
        if key.is_empty() {
            return Err("key_hash is empty".to_owned());
        }
        let lifetime = ttl.filter(|ttl| !ttl.is_empty()).map(|ttl| whole("ttl", ttl)).transpose()?;
        let time = whole("time", units)?;
        let size = whole("size", size)?;
        let key = match numbers.get(*key) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.keys.len()).map_err(|_| "more than 2^32 keys".to_owned())?;
                numbers.insert((*key).into(), number);
                self.keys.push((*key).into());
                number
            }
        };
        self.lines.push(Line { time, key, size, lifetime });
        Ok(())
    }

    /// The requests in their order.
    pub fn requests(&self, lives: TimeToLive) -> impl Iterator<Item = Request<'_>> {
        self.lines.iter().filter_map(move |line| {
            let lifetime = match lives {
                TimeToLive::Trace => line.lifetime,
                TimeToLive::None => None,
                TimeToLive::Fixed(units) => Some(units),
            };
            let key = self.keys.get(line.key as usize)?;
            Some(Request { time: line.time, key, size: line.size, lifetime })
        })
    }

    /// Bytes of the largest body.
    pub fn largest(&self) -> u64 {
        self.lines.iter().map(|line| line.size).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time, key, size and lifetime of each request.
    type Row = (u64, String, u64, Option<u64>);

    fn parsed(text: &str) -> Result<Vec<Row>, String> {
        let trace = Trace::parse(text.as_bytes())?;
        let all = trace.requests(TimeToLive::Trace).map(|request| {
            let Request { time, key, size, lifetime } = request;
            (time, key.to_owned(), size, lifetime)
        });
        Ok(all.collect())
    }

    #[test]
    fn lines_are_requests() {
        let of = |time, key: &str, size, lifetime| (time, key.to_owned(), size, lifetime);
        assert_eq!(
            parsed("time,key_hash,size\n1,ab,10\n2.75,cd,0\r\n2,ab,10\n"),
            Ok(vec![of(1, "ab", 10, None), of(2, "cd", 0, None), of(2, "ab", 10, None)])
        );
        assert_eq!(
            parsed("time,key_hash,size,ttl\n1,ab,10,60\n2,cd,5,\n"),
            Ok(vec![of(1, "ab", 10, Some(60)), of(2, "cd", 5, None)])
        );
        assert_eq!(parsed("time,key_hash,size\n"), Ok(Vec::new()));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, expected) in [
            ("", "line 1: the header is missing"),
            ("time,size\n", "line 1: the header is not"),
            ("time,key_hash,size\n1,ab,10\n1,ab\n", "line 3: 2 columns where the header has 3"),
            ("time,key_hash,size\n1,ab,10,60\n", "line 2: 4 columns where the header has 3"),
            ("time,key_hash,size,ttl\n1,ab,10\n", "line 2: 3 columns where the header has 4"),
            ("time,key_hash,size\n\n", "line 2: 1 columns"),
            ("time,key_hash,size\nnoon,ab,10\n", "line 2: time `noon` is not a number"),
            ("time,key_hash,size\n-1,ab,10\n", "line 2: time `-1` is not a number"),
            ("time,key_hash,size\n1.,ab,10\n", "line 2: time `1.` is not a number"),
            ("time,key_hash,size\n1,,10\n", "line 2: key_hash is empty"),
            ("time,key_hash,size\n1,ab,ten\n", "line 2: size `ten` is not a whole number"),
            ("time,key_hash,size\n1,ab,99999999999999999999\n", "line 2: size `99999999999999999999`"),
            ("time,key_hash,size,ttl\n1,ab,10,soon\n", "line 2: ttl `soon` is not a whole number"),
        ] {
            let told = parsed(text).expect_err(text);
            assert!(told.starts_with(expected), "{text:?}: {told}");
        }
    }
}
