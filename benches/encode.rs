//! What does it cost to put one event into wire form?
//!
//! Beside [`Frame::encode`] stand axum's `Event`, and `serde_json` alone, which is what JSON costs whoever frames it.

mod support;

use std::hint::black_box;

use axum::response::sse::Event;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::Messages;
use tidings::{Frame, Text};

fn json(c: &mut Criterion) {
    for (size, bytes) in [("200B", 200), ("1KB", 1 << 10), ("16KB", 16 << 10)] {
        let messages = Messages::filling(bytes);
        let wire = serde_json::to_vec(&messages.0)
            .expect("messages are JSON")
            .len();
        let mut group = c.benchmark_group(format!("encode/json-{size}"));
        group.throughput(Throughput::Bytes(wire as u64));
        group.bench_function("tidings", |b| {
            b.iter(|| Frame::encode(black_box(&messages)));
        });
        group.bench_function("axum", |b| {
            b.iter(|| {
                Event::default()
                    .event("message")
                    .json_data(black_box(&messages.0))
            });
        });
        group.bench_function("serde_json", |b| {
            b.iter(|| serde_json::to_vec(black_box(&messages.0)));
        });
        group.finish();
    }
}

fn text(c: &mut Criterion) {
    let line = "a line of a log, of which there are many, and each is about so long. ";
    for (name, text) in [
        ("one-line", line.repeat(15)),
        ("many-lines", line.replace(". ", "\n").repeat(15)),
    ] {
        let mut group = c.benchmark_group(format!("encode/text-{name}"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        let event = Text::new(&text).event("message");
        group.bench_function("tidings", |b| {
            b.iter(|| Frame::encode(black_box(&event)));
        });
        group.bench_function("axum", |b| {
            b.iter(|| Event::default().event("message").data(black_box(&text)));
        });
        group.finish();
    }
}

criterion_group!(benches, json, text);
criterion_main!(benches);
