//! Events of what a site's visitors do, for dashboards.
//!
//! The JSON of each event, with every field; those after `timestamp` are optional, as is `timestamp` itself, in
//! milliseconds since 1970:
//!
//! ```
//! # use serde_json::{Value, json};
//! # use tidings::protocol::analytics::AnalyticsEvent;
//! # let events = vec![
//! json!({"type": "sessionStarted", "sessionId": "s1", "timestamp": 1763812800000i64,
//!     "url": "/", "referrer": "https://example.org", "metadata": {"country": "NL"}}),
//! json!({"type": "sessionEnded", "sessionId": "s1", "timestamp": 1763812800000i64, "durationMs": 90000, "pageViews": 3}),
//! json!({"type": "pageView", "sessionId": "s1", "url": "/shop", "timestamp": 1763812800000i64,
//!     "title": "Shop", "referrer": "/", "metadata": {}}),
//! json!({"type": "engagementUpdate", "sessionId": "s1", "activeMs": 15000, "timestamp": 1763812800000i64,
//!     "url": "/shop", "scrollDepth": 0.5, "interactions": 4}),
//! json!({"type": "realTimeStats", "activeSessions": 12, "timestamp": 1763812800000i64,
//!     "activeUsers": 9, "pageViewsPerMinute": 31.5, "topPages": [{"url": "/shop", "views": 20}]}),
//! json!({"type": "heartbeat"}),
//! # ];
//! # for event in events {
//! #     let parsed: AnalyticsEvent = serde_json::from_value(event.clone()).unwrap();
//! #     assert_eq!(serde_json::to_value(&parsed).unwrap(), event);
//! # }
//! ```

use tidings_agui::{Metadata, record};

use super::events::events;

events! {
    /// What one visitor did, or what all visitors do now. The name of its server-sent event is the type.
    ///
    /// ```
    /// use tidings::protocol::analytics::{AnalyticsEvent, PageView};
    ///
    /// let simple = AnalyticsEvent::page_view("s1", "/shop");
    /// let with_title = AnalyticsEvent::from(PageView::new("s1", "/shop").title("Shop"));
    /// assert_eq!(simple.name(), "pageView");
    /// assert_eq!(with_title.name(), "pageView");
    /// ```
    enum AnalyticsEvent {
        /// A visitor came: `sessionStarted`.
        "sessionStarted" => SessionStarted,
        /// A visitor left: `sessionEnded`.
        "sessionEnded" => SessionEnded,
        /// A visitor opened a page: `pageView`.
        "pageView" => PageView,
        /// A visitor reads, scrolls, clicks: `engagementUpdate`.
        "engagementUpdate" => EngagementUpdate,
        /// What all visitors do now: `realTimeStats`.
        "realTimeStats" => RealTimeStats,
    }
}

record! {
    /// A visitor came.
    struct SessionStarted {
        /// The visit.
        session_id: String,
    } optional {
        /// When.
        timestamp: i64,
        /// The first page.
        url: String,
        /// Where the visitor came from.
        referrer: String,
        /// Information of the application's own.
        metadata: Metadata,
    }

    /// A visitor left.
    struct SessionEnded {
        /// The visit.
        session_id: String,
    } optional {
        /// When.
        timestamp: i64,
        /// How long the visit was, in milliseconds.
        duration_ms: u64,
        /// How many pages the visitor opened.
        page_views: u64,
    }

    /// A visitor opened a page.
    struct PageView {
        /// The visit.
        session_id: String,
        /// The page.
        url: String,
    } optional {
        /// When.
        timestamp: i64,
        /// The page's title.
        title: String,
        /// Where the visitor came from.
        referrer: String,
        /// Information of the application's own.
        metadata: Metadata,
    }

    /// A visitor reads, scrolls, clicks.
    struct EngagementUpdate {
        /// The visit.
        session_id: String,
        /// For how long the visitor was active, in milliseconds.
        active_ms: u64,
    } optional {
        /// When.
        timestamp: i64,
        /// The page.
        url: String,
        /// How far down the page the visitor got, from 0 to 1.
        scroll_depth: f64,
        /// How often the visitor clicked or typed.
        interactions: u64,
    }

    /// What all visitors do now.
    struct RealTimeStats {
        /// How many visits there are.
        active_sessions: u64,
    } optional {
        /// When.
        timestamp: i64,
        /// How many visitors these are.
        active_users: u64,
        /// How many pages they open in a minute.
        page_views_per_minute: f64,
        /// The pages that are opened most, those first.
        top_pages: Vec<PageCount>,
    }

    /// How often a page is opened.
    struct PageCount {
        /// The page.
        url: String,
        /// How often.
        views: u64,
    } optional {}
}

impl AnalyticsEvent {
    /// A visitor comes now.
    pub fn session_started(session: impl Into<String>) -> Self {
        SessionStarted::new(session).into()
    }

    /// A visitor leaves now.
    pub fn session_ended(session: impl Into<String>) -> Self {
        SessionEnded::new(session).into()
    }

    /// A visitor opens a page now.
    pub fn page_view(session: impl Into<String>, url: impl Into<String>) -> Self {
        PageView::new(session, url).into()
    }

    /// A visitor has been active for this many milliseconds.
    pub fn engagement_update(session: impl Into<String>, active_ms: u64) -> Self {
        EngagementUpdate::new(session, active_ms).into()
    }

    /// This many sessions are active now.
    #[must_use]
    pub fn real_time_stats(active_sessions: u64) -> Self {
        RealTimeStats::new(active_sessions).into()
    }
}
