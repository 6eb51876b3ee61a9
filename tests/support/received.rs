//! What a reader got, and whether that is what it must get.

use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    /// What a publisher sent, and the event's id.
    Event(String, String),
    Gap(String),
    /// The stream was opened anew.
    Opened,
}

impl Got {
    /// Of an event.
    pub(crate) fn name(&self) -> Option<&String> {
        match self {
            Self::Event(name, _) => Some(name),
            _ => None,
        }
    }
}

/// What readers are held to.
pub(crate) enum Standard {
    /// Of each user the names in the log, which has everything.
    Log(Vec<Vec<String>>),
    /// Of each user the logs that there were.
    Logs(Vec<Logs>),
    /// The servers have lost what they had confirmed.
    Told,
    /// There is no log.
    Publishers,
}

impl Standard {
    pub(crate) fn check(
        &self,
        got: &[Got],
        user: usize,
        confirmed: &HashSet<String>,
    ) -> Result<Checked, String> {
        match self {
            Self::Log(logs) => check_log(got, &logs[user], confirmed),
            Self::Logs(logs) => check_logs(got, &logs[user], confirmed),
            Self::Told => check_told(got, confirmed),
            Self::Publishers => check_publishers(got, confirmed),
        }
    }
}

/// All logs of a user, by their epochs, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Logs(HashMap<String, BTreeMap<u64, String>>);

impl Logs {
    /// There is one event at a place, whoever says so.
    pub(crate) fn add(&mut self, epoch: &str, offset: u64, name: &str) {
        let log = self.0.entry(epoch.to_owned()).or_default();
        let found = log.entry(offset).or_insert_with(|| name.to_owned());
        assert_eq!(found, name, "two events at {epoch}-{offset}");
    }

    /// What a reader got is in one of them.
    pub(crate) fn add_all(&mut self, got: &[Got]) {
        for item in got {
            if let Got::Event(name, id) = item {
                let (epoch, offset) = place(id);
                self.add(epoch, offset, name);
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Of an id, the epoch and the offset.
fn place(id: &str) -> (&str, u64) {
    let (epoch, offset) = id.split_once('-').expect("an id has two parts");
    (epoch, offset.parse().expect("a number"))
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
            Got::Event(name, _) => {
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
    let mut came = Came::new();
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
            Got::Event(name, _) => {
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
    // The first connection is there before anything is published.
    check_confirmed(confirmed, &came, told, 1)?;
    Ok(checked)
}

/// Of each publisher what came, and how often something had been told when it came first.
type Came<'a> = HashMap<&'a str, BTreeMap<u64, usize>>;

/// What was confirmed came, or something was told between what came before it and what came after it.
fn check_confirmed(
    confirmed: &HashSet<String>,
    came: &Came<'_>,
    told: usize,
    told_first: usize,
) -> Result<(), String> {
    for name in confirmed {
        let (publisher, count) = parts(name);
        let of_publisher = came.get(publisher);
        let before = of_publisher.and_then(|came| came.range(..=count).next_back());
        if before.is_some_and(|(last, _)| *last == count) {
            continue;
        }
        let behind = of_publisher.and_then(|came| came.range(count..).next());
        let told_before = before.map_or(told_first, |(_, told)| *told);
        let told_behind = behind.map_or(told, |(_, told)| *told);
        if told_before == told_behind {
            return Err(format!("{name} was confirmed and never came, and no gap"));
        }
    }
    Ok(())
}

/// The same where there was one log after another. A new one is told, and nobody gets anything of an old one after that.
fn check_logs(got: &[Got], logs: &Logs, confirmed: &HashSet<String>) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let mut came = Came::new();
    let (mut names, mut epochs) = (HashSet::new(), HashSet::new());
    let mut last: Option<(&str, u64)> = None;
    // Gaps in all, and since the last event.
    let (mut told, mut just_told) = (0, 0);
    let none = BTreeMap::new();
    for item in got {
        match item {
            Got::Opened => {}
            Got::Gap(_) => {
                checked.gaps += 1;
                (told, just_told) = (told + 1, just_told + 1);
            }
            Got::Event(name, id) => {
                checked.deliveries += 1;
                let (epoch, offset) = place(id);
                if !names.insert(name) {
                    return Err(format!("{name} came twice"));
                }
                let before = match last {
                    Some((last_epoch, before)) if last_epoch == epoch => before,
                    _ => {
                        if !epochs.insert(epoch) {
                            return Err(format!("{name} is of a log that was over"));
                        }
                        if last.is_some() && just_told == 0 {
                            return Err(format!("{name} is of another log, and no gap"));
                        }
                        match std::mem::take(&mut just_told) {
                            // The first, of which nothing is missing.
                            0 => 0,
                            // What is missing at the beginning is told as well.
                            _ => offset - 1,
                        }
                    }
                };
                if offset <= before {
                    return Err(format!("{name} came twice, or late, at {id}"));
                }
                let log = logs.0.get(epoch).unwrap_or(&none);
                match log.range(before + 1..offset).next() {
                    Some((_, missing)) if just_told == 0 => {
                        return Err(format!(
                            "{missing} was not delivered before {name}, and no gap"
                        ));
                    }
                    Some(_) => {}
                    None => checked.idle_gaps += just_told,
                }
                let (publisher, count) = parts(name);
                let of_publisher = came.entry(publisher).or_default();
                of_publisher.entry(count).or_insert(told);
                (last, just_told) = (Some((epoch, offset)), 0);
            }
        }
    }
    if let (Some((epoch, offset)), 0) = (last, just_told) {
        let log = logs.0.get(epoch).unwrap_or(&none);
        if let Some((_, missing)) = log.range(offset + 1..).next() {
            return Err(format!("the last from {missing} never came, and no gap"));
        }
    }
    check_confirmed(confirmed, &came, told, 0)?;
    Ok(checked)
}

/// Where the servers themselves have lost what they had confirmed: whoever lacks an event is told after the one before it.
pub(crate) fn check_told(got: &[Got], confirmed: &HashSet<String>) -> Result<Checked, String> {
    let mut checked = Checked::default();
    // And at which place.
    let mut came = Came::new();
    let mut last_gap = None;
    for (place, item) in got.iter().enumerate() {
        match item {
            Got::Opened => {}
            Got::Gap(_) => {
                checked.gaps += 1;
                last_gap = Some(place);
            }
            Got::Event(name, _) => {
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
    let names =
        |item: &Got| matches!(item, Got::Event(name, _) if violation.contains(name.as_str()));
    let places: Vec<usize> = (0..got.len()).filter(|at| names(&got[*at])).collect();
    let near = places
        .into_iter()
        .flat_map(|at| at.saturating_sub(8)..(at + 8).min(got.len()));
    near.map(|at| got[at].clone()).collect()
}
