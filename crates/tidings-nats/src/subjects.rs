//! What the subjects of one broadcaster are.
//!
//! `<scope>.live.<buckets>.<bucket>.<token>` is what nodes subscribe to, `<scope>.log.…` what they publish to where there is a
//! log. The number of buckets is in there so that nodes that disagree about it do not misunderstand each other.

use super::token::{self, Token};

#[derive(Debug, Clone)]
pub(super) struct Subjects {
    live: String,
    log: String,
    peers: String,
    buckets: u32,
}

impl Subjects {
    pub(super) fn new(scope: &str, buckets: u32) -> Self {
        Self {
            live: format!("{scope}.live.{buckets}."),
            log: format!("{scope}.log.{buckets}."),
            peers: format!("{scope}.live.peers"),
            buckets,
        }
    }

    /// The bucket of a user: FNV-1a of the id, which is the same on every node and in every version.
    pub(super) fn bucket(&self, user: &str) -> u32 {
        (fnv1a(user.as_bytes()) % u64::from(self.buckets)) as u32
    }

    /// Where nodes hear of a user.
    pub(super) fn live(&self, user: &str) -> String {
        self.of(&self.live, user)
    }

    /// Where a user's messages are logged.
    pub(super) fn log(&self, user: &str) -> String {
        self.of(&self.log, user)
    }

    /// Where nodes hear of all users of a bucket.
    pub(super) fn live_bucket(&self, bucket: u32) -> String {
        format!("{}{bucket}.>", self.live)
    }

    /// Where a node sends what is to come back to it through its subscription to a bucket: no user's subject.
    pub(super) fn probe(&self, bucket: u32) -> String {
        format!("{}{bucket}.=.probe", self.live)
    }

    /// Where nodes of the same scope meet, whatever their settings.
    pub(super) fn peers(&self) -> &str {
        &self.peers
    }

    /// The bucket in a subject that nodes subscribe to.
    pub(super) fn bucket_in(&self, subject: &str) -> Option<u32> {
        let rest = subject.strip_prefix(&self.live)?;
        rest.split_once('.')?.0.parse().ok()
    }

    pub(super) fn all_live(&self) -> String {
        format!("{}>", self.live)
    }

    pub(super) fn all_log(&self) -> String {
        format!("{}>", self.log)
    }

    fn of(&self, prefix: &str, user: &str) -> String {
        let mut subject = format!("{prefix}{}.", self.bucket(user));
        token::encode(user, &mut subject);
        subject
    }

    /// Whose subject it is; `None` for what is no subject of a user in this bucket.
    pub(super) fn user<'a>(&self, subject: &'a str, bucket: u32) -> Option<Token<'a>> {
        let rest = subject.strip_prefix(&self.live)?;
        let (written, text) = rest.split_once('.')?;
        if written.parse() != Ok(bucket) {
            return None;
        }
        let token = token::decode(text)?;
        match &token {
            Token::Id(id) if self.bucket(id) != bucket => None,
            _ => Some(token),
        }
    }
}

/// The 64-bit FNV-1a hash.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_subject_leads_back_to_the_user() {
        let subjects = Subjects::new("chat", 16);
        for user in ["ann", "", "a.b", "*", ">", "ü"] {
            let subject = subjects.live(user);
            let bucket = subjects.bucket(user);
            assert_eq!(
                subjects.user(&subject, bucket),
                Some(Token::Id(user.into()))
            );
            assert_eq!(subjects.user(&subject, (bucket + 1) % 16), None);
            assert_eq!(subjects.user(&subjects.log(user), bucket), None);
        }
    }

    #[test]
    fn buckets_stay_what_they_are() {
        // Nodes of two versions work together: the hash is part of the protocol.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn other_subjects_are_nobodys() {
        let subjects = Subjects::new("chat", 1);
        for subject in [
            "chat.live.1.0",
            "chat.live.1.0.",
            "chat.live.1.0.a.b",
            "chat.live.1.0.=41",
            "chat.live.1.1.a",
            "chat.live.2.0.a",
            "talk.live.1.0.a",
        ] {
            assert_eq!(subjects.user(subject, 0), None, "{subject}");
        }
    }
}
