//! What only the crate itself sees of frames: those of other nodes, slots for ids, gaps.

use bytes::Bytes;

use super::{Draft, Frame};
use crate::event::Text;
use crate::gap::{Gap, GapReason};
use crate::position::Position;

fn parse(body: &'static str) -> Option<Draft> {
    Frame::parse(Bytes::from_static(body.as_bytes()))
}

fn text(frame: &Frame) -> &str {
    std::str::from_utf8(frame.as_bytes()).expect("text")
}

fn place(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

#[test]
fn a_frame_of_another_node_is_kept_as_it_is() {
    let whole = [
        "data: x\n\n",
        "data: \n\n",
        "data: a\ndata: b\ndata: \n\n",
        "data: id: 7\ndata: : \n\n",
        "data: nul\0 in data\n\n",
        ": note\nevent: greeting\nid: 7\nretry: 1500\ndata: x\n\n",
        "retry: 2147483647\ndata: x\n\n",
        "retry: 0\nevent: any order before data\ndata: x\n\n",
    ];
    for body in whole {
        let frame = parse(body).expect(body).finish(None);
        assert_eq!(text(&frame), body);
        let data = body.split('\n').filter_map(|l| l.strip_prefix("data: "));
        let data = data.collect::<Vec<_>>().join("\n");
        assert_eq!(parse(body).expect(body).data(), data);
        assert_eq!(frame.data(), data);
        let line = (!data.contains('\n')).then(|| Bytes::from(data));
        assert_eq!(frame.data_line(), line, "{body:?}");
    }
}

#[test]
fn only_one_whole_event_of_another_node_is_parsed() {
    let broken = [
        "",
        "\n\n",
        "data: x",
        "data: x\n",
        // Two events, or one and the beginning of another.
        "data: x\n\ndata: y\n\n",
        "data: x\n\nid: 7\n\n",
        // No data, or fields behind it.
        "event: greeting\n\n",
        "data: x\nid: 7\n\n",
        "data: x\nevent: y\ndata: z\n\n",
        "data: x\n: note\n\n",
        // What clients would read otherwise than it stands here.
        "data:x\n\n",
        "data\n\n",
        "data: a\rid: 7\n\n",
        "data: a\r\n\n",
        "event: a\rdata: b\ndata: x\n\n",
        "id: 7\0\ndata: x\n\n",
        "event: a\0\ndata: x\n\n",
        ": a\0\ndata: x\n\n",
        "retry: 1s\ndata: x\n\n",
        "retry: 2147483648\ndata: x\n\n",
        "retry: 99999999999999999999\ndata: x\n\n",
        "retry: \ndata: x\n\n",
        "retry: -1\ndata: x\n\n",
        "other: y\ndata: x\n\n",
        "Data: x\n\n",
        "\u{feff}data: x\n\n",
    ];
    for body in broken {
        assert!(parse(body).is_none(), "{body:?}");
    }
    assert!(Frame::parse(Bytes::from_static(b"data: \xff\n\n")).is_none());
}

#[test]
fn a_frame_gets_an_id_in_place_of_the_one_it_brought() {
    let brought = "event: a\nid: 7\nretry: 5\ndata: x\ndata: id: 8\n\n";
    let rest = "event: a\nretry: 5\ndata: x\ndata: id: 8\n\n";
    let mut frame = parse(brought).expect("whole").with_slot(true);
    assert_eq!(frame.data(), "x\nid: 8");
    let id = place(0xabc, 12);
    let frame = frame.finish(Some(id));
    assert_eq!(text(&frame), format!("id: {id}\n{rest}"));
    assert_eq!(frame.body(), rest.as_bytes());
    assert_eq!(frame.place(), Some(id));

    // None is given: the one it brought stays.
    let frame = parse(brought).expect("whole").with_slot(false).finish(None);
    assert_eq!(text(&frame), brought);
}

#[test]
fn an_id_stands_in_the_slot_right_before_the_event() {
    for id in [place(1, u64::MAX), place(u64::MAX, 0), place(1, 10)] {
        let (mut draft, _) = Draft::encode(&Text::new("x"), true).expect("text");
        let frame = draft.finish(Some(id));
        assert_eq!(text(&frame), format!("id: {id}\ndata: x\n\n"));
        assert_eq!(frame.body(), b"data: x\n\n");
    }
}

#[test]
fn a_gap_is_an_event_of_one_line() {
    for (missed, number) in [(Some(3), "3"), (None, "null")] {
        for position in [None, Some(place(1, 5))] {
            let gap = Gap::new(GapReason::Evicted, missed).at(position);
            let frame = Frame::gap(&gap);
            let data = format!(r#"{{"reason":"evicted","missed":{number}}}"#);
            let id = position.map_or(String::new(), |id| format!("id: {id}\n"));
            assert_eq!(text(&frame), format!("{id}event: gap\ndata: {data}\n\n"));
            assert_eq!(frame.data_line(), Some(Bytes::from(data)));
            assert_eq!(frame.body(), &frame.as_bytes()[id.len()..]);
            assert_eq!(frame.told(), None);
            let notice = Frame::notice(gap);
            assert_eq!(notice, frame);
            assert_eq!(notice.told(), Some(gap));
        }
    }
}

#[test]
fn what_an_event_holds_stays_out_of_logs() {
    let frame = Frame::encode(&Text::new("secret")).expect("text");
    assert_eq!(format!("{frame:?}"), "Frame { len: 14, .. }");
}
