//! The list of users and their connections, searched and capped here: a page must not get 100,000 rows.

use serde::Serialize;

use super::source::Source;
use tidings::ConnectionInfo;
use tidings::UserId;

#[derive(Serialize)]
pub(super) struct Listing {
    /// Users that are connected.
    total: usize,
    /// Users that the search has found.
    found: usize,
    /// Whether some of what was found is left out.
    capped: bool,
    users: Vec<User>,
}

#[derive(Serialize)]
struct User {
    user: String,
    /// All that the user has, shown or not.
    total: usize,
    connections: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    connection: String,
    age_ms: u64,
    lagged: u64,
    behind: u64,
}

/// The first users, in the order of their ids, whose id contains the text, ignoring case; up to `rows` connections. Costs a
/// walk over all users.
pub(super) fn list(source: &dyn Source, search: &str, rows: usize) -> Listing {
    let mut users = source.users();
    let total = users.len();
    if !search.is_empty() {
        let search = search.to_lowercase();
        users.retain(|user| user.to_lowercase().contains(&search));
    }
    let found = users.len();
    // Only users that are shown are sorted. Each has a connection, unless it has left by now.
    if found > rows {
        users.select_nth_unstable(rows - 1);
        users.truncate(rows);
    }
    users.sort_unstable();

    let mut room = rows;
    let mut shown = Vec::new();
    let mut capped = found > rows;
    for user in &users {
        if room == 0 {
            capped = true;
            break;
        }
        let user = User::of(source, user, room);
        capped |= user.connections.len() < user.total;
        room -= user.connections.len();
        if user.total > 0 {
            shown.push(user);
        }
    }
    Listing {
        total,
        found,
        capped,
        users: shown,
    }
}

impl User {
    fn of(source: &dyn Source, user: &UserId, room: usize) -> Self {
        let connections = source.connections_of(user);
        Self {
            user: user.as_str().to_owned(),
            total: connections.len(),
            connections: connections.into_iter().take(room).map(Row::from).collect(),
        }
    }
}

impl From<ConnectionInfo> for Row {
    fn from(info: ConnectionInfo) -> Self {
        Self {
            connection: info.connection.as_str().to_owned(),
            age_ms: info.age.as_millis() as u64,
            lagged: info.lagged,
            behind: info.behind,
        }
    }
}
