//! The log: lines on standard error.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: time, level, where, text and `key=value`. Without the time if systemd's journal adds it.
    Text,
    /// For programs: one JSON object a line, with all keys at its top level.
    Json,
}

/// Starts logging to standard error: what `RUST_LOG` says, else everything from `info` on. Colours are for terminals, and
/// not if `NO_COLOR` is set.
pub fn start(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // systemd sets this if standard error leads to the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = io::stderr().is_terminal() && !unwanted;
    let subscriber = subscriber(format, filter, !journal, colours, io::stderr);
    tracing::subscriber::set_global_default(subscriber).expect("is started once");
}

fn subscriber<W>(
    format: Format,
    filter: EnvFilter,
    time: bool,
    colours: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // What cannot be written is not complained about: that would go to standard error as well, and end whoever logged.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .log_internal_errors(false);
    match (format, time) {
        (Format::Text, true) => Box::new(builder.finish()),
        (Format::Text, false) => Box::new(builder.without_time().finish()),
        (Format::Json, _) => Box::new(builder.json().flatten_event(true).with_current_span(false).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, time: bool, colours: bool) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(format, EnvFilter::new("info"), time, colours, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let none: Option<&str> = None;
            tracing::warn!(pod = "default/web", vf = %"0000:03:10.6", reason = none, "attach refused: taken");
            tracing::debug!("not this");
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_of_json_has_the_keys_of_the_event_at_its_top() {
        let text = written(Format::Json, true, false);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "attach refused: taken");
        assert_eq!((&line["pod"], &line["vf"]), (&"default/web".into(), &"0000:03:10.6".into()));
        assert!(line["timestamp"].is_string() && line.get("reason").is_none(), "{text}");
    }

    #[test]
    fn text_has_colours_on_terminals_alone_and_no_time_in_the_journal() {
        let plain = written(Format::Text, false, false);
        assert!(plain.trim_start().starts_with("WARN "), "{plain}");
        assert!(plain.contains("attach refused: taken pod=\"default/web\" vf=0000:03:10.6"), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(written(Format::Text, true, true).contains('\u{1b}'));
        assert!(written(Format::Text, true, false).starts_with("20"));
    }
}
