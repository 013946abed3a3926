//! `/metrics`, read.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::client::get;

/// All samples of one look at the metrics.
#[derive(Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metrics {
    pub fn of(admin: SocketAddr) -> Metrics {
        let answer = get(admin, "/metrics");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let text = answer.text();
        Metrics { samples: text.lines().filter(|line| !line.starts_with('#')).map(sample).collect() }
    }

    /// All samples of a metric.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of a metric over all labels but these.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|own| own == value))
        };
        self.all(name).filter(has).map(|sample| sample.value).sum()
    }
}

/// `name{label="value",…} 5`; no value of ours holds a quote or a comma.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("odd sample: {line}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    Sample {
        name: name.to_owned(),
        labels: pairs.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect(),
        value: value.parse().unwrap_or_else(|_| panic!("odd sample: {line}")),
    }
}
