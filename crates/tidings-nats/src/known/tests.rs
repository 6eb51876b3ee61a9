//! Which stream is the known log.

use serde_json::json;

use super::*;

/// The stream as a server of a cluster shows it.
fn info<'a>(leader: impl Into<Option<&'a str>>, last: u64) -> Info {
    let leader: Option<&str> = leader.into();
    let info = json!({
        "config": {"name": "TEST", "retention": "limits", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1,
            "discard": "old", "max_age": 0, "storage": "file", "num_replicas": 3},
        "created": "2026-01-01T00:00:00Z",
        "state": {"messages": last, "bytes": 0, "first_seq": 1, "first_ts": "2026-01-01T00:00:00Z",
            "last_seq": last, "last_ts": "2026-01-01T00:00:00Z", "consumer_count": 0},
        "cluster": {"name": "three", "leader": leader, "replicas": []},
    });
    serde_json::from_value(info).expect("what a server sends")
}

fn known() -> Known {
    Known::new(&info("s0", 10), &Config::default())
}

fn at(offset: u64) -> Position {
    end_of(&info("s0", offset))
}

fn look(known: &mut Known, info: &Info) -> End {
    let expected = known.expect();
    known.judge(&expected, info, Instant::now())
}

fn settle(known: &mut Known, info: &Info) {
    let expected = known.expect();
    known.settle(&expected, info);
}

#[tokio::test(start_paused = true)]
async fn only_one_leader_that_goes_on_saying_so_makes_a_stream_too_short() {
    let mut known = known();
    let mut says = |leader, last| look(&mut known, &info(leader, last));
    assert_eq!(says("s0", 10), End::Plausible);
    assert_eq!(says("s1", 9), End::Behind);
    tokio::time::advance(PATIENCE / 2).await;
    assert_eq!(says("s2", 9), End::Behind);
    tokio::time::advance(PATIENCE / 2).await;
    assert_eq!(says("s2", 9), End::Behind, "this one not for long enough");
    assert_eq!(says("s2", 10), End::Questioned);
    tokio::time::advance(PATIENCE / 2).await;
    assert_eq!(says("s2", 9), End::Short);
    settle(&mut known, &info("s2", 10));
    let look = look(&mut known, &info("s2", 9));
    assert_eq!(look, End::Behind, "it begins anew");
}

/// As NATS 2.15 shows the stream, except when it is made: 2.9 never says who leads.
#[test]
fn a_server_that_is_alone_is_believed_immediately_whether_it_calls_itself_leader_or_not() {
    let mut named = info("alone", 9);
    named.cluster.as_mut().expect("it is there").name = None;
    let mut unnamed = named.clone();
    unnamed.cluster = None;
    for (made, found) in [(&unnamed, &named), (&named, &unnamed)] {
        let mut known = Known::new(made, &Config::default());
        assert!(known.is_vouched(at(9), found), "it is the same server");
        known.advance(at(10), || Mark::Nothing);
        assert_eq!(look(&mut known, found), End::Short);
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_nobody_led_does_not_make_a_stream_too_short() {
    for failed in [false, true] {
        let mut known = known();
        assert_eq!(look(&mut known, &info("s0", 9)), End::Behind);
        match failed {
            true => known.fail(),
            false => assert_eq!(look(&mut known, &info(None, 9)), End::Behind),
        }
        tokio::time::advance(PATIENCE).await;
        assert_eq!(look(&mut known, &info("s0", 9)), End::Behind);
        tokio::time::advance(PATIENCE).await;
        assert_eq!(look(&mut known, &info("s0", 9)), End::Short);
    }
}

/// The places that a look compares, which the stream reaches.
fn compared(known: &mut Known, info: &Info) -> Vec<u64> {
    let expected = known.expect();
    let judged = known.judge(&expected, info, Instant::now());
    let is_question = judged == End::Questioned;
    match judged {
        End::Questioned | End::Plausible => expected
            .places(is_question)
            .map(|of| of.position.offset)
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// What comes after the question can be of another log.
#[test]
fn a_question_is_about_the_place_that_was_newest_when_it_was_raised() {
    type Raise = fn(&mut Known);
    let raises: [Raise; 4] = [
        Known::question,
        |known| assert_eq!(look(known, &info("s0", 9)), End::Behind),
        |known| assert_eq!(look(known, &info(None, 10)), End::Behind),
        |known| {
            known.send(1);
            assert!(!known.believe(1, at(3), false, false));
        },
    ];
    for raise in raises {
        let mut known = known();
        raise(&mut known);
        known.advance(at(11), || Mark::Nothing);
        // It is not told again.
        known.question();
        known.send(2);
        assert!(known.believe(2, at(12), false, false));
        assert_eq!(compared(&mut known, &info("s0", 12)), [10, 12]);
        settle(&mut known, &info("s0", 12));
        let next = look(&mut known, &info("s0", 12));
        assert_eq!(next, End::Plausible, "it is answered");
    }
}

#[test]
fn a_question_that_is_raised_during_a_look_is_one_for_the_next() {
    let mut known = known();
    known.question();
    let expected = known.expect();
    let judged = known.judge(&expected, &info("s0", 10), Instant::now());
    assert_eq!(judged, End::Questioned);
    known.question();
    known.settle(&expected, &info("s0", 10));
    assert_eq!(look(&mut known, &info("s0", 10)), End::Questioned);
}

/// A server that lost some of them leads, and what came after has used their places before anybody looks.
#[tokio::test(start_paused = true)]
async fn places_that_another_log_has_passed_are_compared() {
    let mut known = known();
    for offset in 11..=14 {
        known.advance(at(offset), || Mark::Nothing);
        tokio::time::advance(SPACING).await;
    }
    // Of the new log, which has lost some of them.
    known.advance(at(15), || Mark::Nothing);
    known.advance(at(16), || Mark::Nothing);
    let mut of_new = known.clone();
    assert_eq!(
        compared(&mut of_new, &info("s1", 16)),
        [10, 11, 12, 13, 14, 16]
    );
    // The same server leads again, or has never ceased to.
    assert_eq!(compared(&mut known, &info("s0", 16)), [10]);
    settle(&mut known, &info("s0", 16));
    known.advance(at(17), || Mark::Nothing);
    assert_eq!(compared(&mut known, &info("s0", 17)), [16]);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_places_are_kept_for_as_long_as_no_look_ends() {
    let mut known = known();
    for offset in 11..=99 {
        known.advance(at(offset), || Mark::Nothing);
        tokio::time::advance(SPACING).await;
        known.fail();
    }
    let places = compared(&mut known, &info("s0", 99));
    assert_eq!(places.len(), TRAIL);
    assert_eq!((places[0], places[1], places[TRAIL - 1]), (10, 11, 99));
}

/// As NATS 2.9 answers that has lost its disk and permissions were read again.
#[tokio::test(start_paused = true)]
async fn a_server_of_a_cluster_that_knows_no_leader_is_never_believed() {
    let mut known = known();
    let newest = known.newest().position;
    let mut of_another = info(None, 10);
    of_another.config.description = Some("tidings-epoch=1".into());
    for _ in 0..3 {
        for info in [info(None, 2), info(None, 10), of_another.clone()] {
            assert_eq!(look(&mut known, &info), End::Behind);
            assert!(!known.is_vouched(newest, &info));
        }
        tokio::time::advance(PATIENCE).await;
    }
    let look = look(&mut known, &info("s0", 10));
    assert_eq!(look, End::Questioned);
}

#[test]
fn an_acknowledgement_below_what_was_known_is_never_believed() {
    let mut known = known();
    assert!(!known.send(1));
    assert!(!known.believe(1, at(3), false, false));
    // The same server has the message now, and the log has gone on meanwhile.
    known.advance(at(20), || Mark::Nothing);
    assert!(known.send(1));
    assert!(!known.believe(1, at(3), true, true));
    assert!(known.send(1));
    assert!(known.believe(1, at(11), true, true), "it is in the log too");
    assert!(!known.send(1));
    assert!(known.believe(1, at(11), false, true), "it was accepted");
    assert_eq!(known.newest().position.offset, 20);
}
