//! What Linux says of a process, in `/proc`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::Command;

/// The memory of a process that is in RAM, in KB.
pub(crate) fn rss_kb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(f64::NAN)
}

/// The most of it since [`reset_peak`], in KB.
pub(crate) fn peak_kb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(f64::NAN)
}

pub(crate) fn reset_peak(pid: u32) {
    // Where that is not allowed, the peak is that of the whole life, and so no smaller.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The time that a process, all threads of it, has spent on a CPU, in user space and in the kernel, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    /// `USER_HZ`, which is 100 on every architecture that matters.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program stands in parentheses and may contain anything; `utime` is the twelfth column after it.
    let (_, columns) = stat.rsplit_once(')').unwrap_or_default();
    let mut times = columns.split_whitespace().skip(11);
    let mut next = || times.next()?.parse::<f64>().ok();
    match (next(), next()) {
        (Some(user), Some(system)) => (user + system) / TICKS,
        _ => f64::NAN,
    }
}

/// The time on a CPU in nanoseconds, of the threads that the process has now. Not rounded to ticks, as that above is.
pub(crate) fn cpu_nanos(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let of_thread = |thread: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.filter_map(of_thread).sum()
}

/// How many files a process has open, sockets among them.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// How often a SYN had to be sent again since the machine was started.
pub(crate) fn syn_retransmits() -> f64 {
    let table = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    // A line of names, then a line of values, each with the same first word.
    let mut rows = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (
        rows.next().unwrap_or_default(),
        rows.next().unwrap_or_default(),
    );
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    let column = columns.find(|(name, _)| *name == "TCPSynRetrans");
    column
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(f64::NAN)
}

/// What the buffers of all TCP sockets take, in KB.
pub(crate) fn tcp_kb() -> f64 {
    /// A page, on most machines.
    const PAGE_KB: f64 = 4.0;
    let table = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = table.lines().find_map(|line| line.strip_prefix("TCP:"));
    let mut words = line.unwrap_or_default().split_whitespace();
    let pages = words
        .find(|word| *word == "mem")
        .and_then(|_| words.next()?.parse::<f64>().ok());
    pages.map_or(f64::NAN, |pages| pages * PAGE_KB)
}

/// The clients for which the kernel has a socket of this server, be it one that the server has closed and that is still
/// sending. The process tells in whose network to look.
pub(crate) fn clients_of(pid: u32, server: SocketAddr) -> Vec<SocketAddr> {
    let path = format!("/proc/{pid}/net/tcp");
    let table = fs::read_to_string(path).unwrap_or_default();
    let of_row = |row: &str| {
        let mut columns = row.split_whitespace().skip(1);
        let (local, remote) = (address(columns.next()?)?, address(columns.next()?)?);
        (local == server && remote.port() != 0).then_some(remote)
    };
    table.lines().filter_map(of_row).collect()
}

/// The rows of that table that are of this server, with their states and queues.
pub(crate) fn sockets_of(pid: u32, server: SocketAddr) -> Vec<String> {
    let path = format!("/proc/{pid}/net/tcp");
    let table = fs::read_to_string(path).unwrap_or_default();
    let is_of = |row: &&str| {
        let mut ends = row.split_whitespace().skip(1).take(2).filter_map(address);
        ends.any(|end| end == server)
    };
    // The listener, and those that wait for the last packets, say nothing.
    let is_open = |row: &&str| {
        let state = row.split_whitespace().nth(3);
        !matches!(state, Some("0A" | "06"))
    };
    let rows = table.lines().filter(is_of).filter(is_open);
    rows.map(str::to_owned).collect()
}

fn address(column: &str) -> Option<SocketAddr> {
    let (ip, port) = column.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(ip.to_ne_bytes()), port).into())
}

/// Makes sure that this process, and those that it starts, can each have so many files open. Ends it, with a sentence that
/// says what to do, where that is not allowed.
pub(crate) fn allow_files(count: usize) {
    // Whatever else is open.
    let wanted = count + 100;
    let limits = || {
        let table = fs::read_to_string("/proc/self/limits").expect("Linux");
        let row = table
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        let mut columns = row.expect("a limit of files").split_whitespace();
        let mut next = || columns.next()?.parse().ok();
        (next().unwrap_or(usize::MAX), next().unwrap_or(usize::MAX))
    };
    let (soft, hard) = limits();
    if soft >= wanted {
        return;
    }
    let raised = hard.max(if hard < wanted { wanted } else { 0 });
    // From util-linux: without it, this would be a system call, and those need unsafe code.
    let _ = Command::new("prlimit")
        .arg(format!("--pid={}", std::process::id()))
        .arg(format!("--nofile={raised}:{raised}"))
        .status();
    if limits().0 < wanted {
        eprintln!(
            "This needs {wanted} open files in one process and may have {soft}: run `ulimit -n {wanted}` first, as root if it is refused."
        );
        std::process::exit(1);
    }
}
