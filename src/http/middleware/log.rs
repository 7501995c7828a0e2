//! One line per request that reads alone and queries well.

use tracing::Level;

use super::record::{RequestObserver, RequestRecord};

/// Writes the line, and the cause of an error with it: each request is logged once, whatever happened to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLog;

impl RequestObserver for RequestLog {
    fn finished(&self, record: &RequestRecord<'_>) {
        // An event's level is part of its static description, hence one macro call for each.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "countersign::request",
                    $level,
                    method = record.method,
                    route = record.route,
                    status = record.status,
                    duration_us = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
                    request_id = record.request_id.as_str(),
                    client_address = %record.client,
                    caller = record.facts.caller.as_ref().map(tracing::field::display),
                    subject = record.facts.subject.as_ref().map(tracing::field::display),
                    cache_hit = record.facts.cache_hit,
                    outcome = record.facts.outcome,
                    database_us = record.facts.database.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
                    error = record.error,
                    cause = record.cause.map(tracing::field::display),
                    "request"
                )
            };
        }
        match record.status {
            500 => line!(Level::ERROR),
            501.. => line!(Level::WARN),
            _ => line!(Level::INFO),
        }
    }
}
