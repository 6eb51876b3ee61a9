//! What a reader got, and whether that is what it must get.

use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    /// What a publisher sent.
    Event(String),
    Gap(String),
    /// The stream was opened anew.
    Opened,
}

/// The name of the event in a message of the log, whatever else that has.
pub(crate) fn name_in(message: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(message);
    let start = text.rfind('<')?;
    let end = start + text[start..].find('>')?;
    Some(text[start..=end].to_owned())
}

#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) deliveries: usize,
    pub(crate) gaps: usize,
    /// Gaps where nothing was missing.
    pub(crate) idle_gaps: usize,
}

/// What one reader got, where everybody has to see one order.
pub(crate) fn check_log(
    got: &[Got],
    log: &[String],
    confirmed: &HashSet<String>,
) -> Result<Checked, String> {
    let mut at: HashMap<&str, usize> = HashMap::new();
    for (place, name) in log.iter().enumerate() {
        if at.insert(name, place).is_some() {
            return Err(format!("{name} is in the log twice"));
        }
    }
    for name in confirmed {
        if !at.contains_key(&**name) {
            return Err(format!("{name} was confirmed and is not in the log"));
        }
    }
    let mut checked = Checked::default();
    let (mut next, mut told) = (0, 0);
    // Gaps since the stream was opened. What was missing before that may have been read from the log since.
    let mut here_told = 0;
    for item in got {
        match item {
            Got::Opened => here_told = 0,
            Got::Gap(_) => {
                checked.gaps += 1;
                told += 1;
                here_told += 1;
            }
            Got::Event(name) => {
                checked.deliveries += 1;
                let Some(&here) = at.get(&**name) else {
                    return Err(format!("{name} is not in the log"));
                };
                if here < next {
                    return Err(format!("{name} came twice, or late"));
                }
                if here > next && told == 0 {
                    return Err(format!(
                        "{} was not delivered before {name}, and no gap",
                        log[next]
                    ));
                }
                if here == next {
                    checked.idle_gaps += here_told;
                }
                (next, told, here_told) = (here + 1, 0, 0);
            }
        }
    }
    if next < log.len() && told == 0 {
        let missing = log.len() - next;
        return Err(format!(
            "the last {missing} from {} never came, and no gap",
            log[next]
        ));
    }
    Ok(checked)
}

/// The same where each publisher has its own order, and what is lost must be told after the last of its events that came. A
/// new connection has no id to say where the client was, so it begins anew: it counts as told, and events may come twice.
pub(crate) fn check_publishers(
    got: &[Got],
    confirmed: &HashSet<String>,
) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let mut here: HashSet<&str> = HashSet::new();
    // The last of each publisher that came here. Another node may be behind, and have what the one before it never got.
    let mut last_here: HashMap<&str, u64> = HashMap::new();
    // Of each publisher what came, and how often something had been told when it came first.
    let mut came: HashMap<&str, BTreeMap<u64, usize>> = HashMap::new();
    let mut told = 0;
    for item in got {
        match item {
            Got::Opened => {
                here.clear();
                last_here.clear();
                told += 1;
            }
            Got::Gap(_) => {
                checked.gaps += 1;
                told += 1;
            }
            Got::Event(name) => {
                checked.deliveries += 1;
                if !here.insert(name) {
                    return Err(format!("{name} came twice on one connection"));
                }
                let (publisher, count) = parts(name);
                let last = last_here.insert(publisher, count).unwrap_or(0);
                if count < last {
                    return Err(format!("{name} came behind {last}"));
                }
                came.entry(publisher)
                    .or_default()
                    .entry(count)
                    .or_insert(told);
            }
        }
    }
    for name in confirmed {
        let (publisher, count) = parts(name);
        let of_publisher = came.get(publisher);
        let before = of_publisher.and_then(|came| came.range(..=count).next_back());
        if before.is_some_and(|(last, _)| *last == count) {
            continue;
        }
        let behind = of_publisher.and_then(|came| came.range(count..).next());
        // The first connection is there before anything is published.
        let told_before = before.map_or(1, |(_, told)| *told);
        let told_behind = behind.map_or(told, |(_, told)| *told);
        if told_before == told_behind {
            return Err(format!("{name} was confirmed and never came, and no gap"));
        }
    }
    Ok(checked)
}

/// Where the servers themselves have lost what they had confirmed: whoever lacks an event is told after the one before it.
pub(crate) fn check_told(got: &[Got], confirmed: &HashSet<String>) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let mut came: HashMap<&str, BTreeMap<u64, usize>> = HashMap::new();
    let mut last_gap = None;
    for (place, item) in got.iter().enumerate() {
        match item {
            Got::Opened => {}
            Got::Gap(_) => {
                checked.gaps += 1;
                last_gap = Some(place);
            }
            Got::Event(name) => {
                checked.deliveries += 1;
                let (publisher, count) = parts(name);
                let of_publisher = came.entry(publisher).or_default();
                of_publisher.entry(count).or_insert(place);
            }
        }
    }
    for name in confirmed {
        let (publisher, count) = parts(name);
        let of_publisher = came.get(publisher);
        match of_publisher.and_then(|came| came.range(..=count).next_back()) {
            Some((last, _)) if *last == count => {}
            before if last_gap > before.map(|(_, place)| *place) => {}
            _ => return Err(format!("{name} was lost by the servers, and no gap")),
        }
    }
    Ok(checked)
}

/// The publisher of an event, and how many it had sent to anybody with it.
fn parts(name: &str) -> (&str, u64) {
    let (publisher, count) = name[1..name.len() - 1].split_once(' ').expect("two parts");
    (publisher, count.parse().expect("a number"))
}

/// What was received near the first event that a violation names.
pub(crate) fn around(got: &[Got], violation: &str) -> Vec<Got> {
    let names = |item: &Got| matches!(item, Got::Event(name) if violation.contains(name.as_str()));
    let places: Vec<usize> = (0..got.len()).filter(|at| names(&got[*at])).collect();
    let near = places
        .into_iter()
        .flat_map(|at| at.saturating_sub(8)..(at + 8).min(got.len()));
    near.map(|at| got[at].clone()).collect()
}
