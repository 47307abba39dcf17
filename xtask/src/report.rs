//! Reads what the driver inside a guest says on the second serial port. Pure: lines in, cases out.
//!
//! The lines, each written whole by one write:
//!
//! ```text
//! plan 3                      how many cases will be reported: the first line
//! case NAME                   the case has begun
//! ok NAME MILLISECONDS        it passed, after this time
//! not ok NAME: reason         it failed
//! skip NAME: reason           it was left out
//! figure TEXT                 a measurement, to be printed as it is
//! stamp exec MICROSECONDS     the guest's clock right before PID 1 was executed
//! stamp started N MICROSECONDS    the guest's clock when trivial service N ran its first instruction
//! done                        all is reported: the last line
//! ```
//!
//! What does not fit is kept and becomes a failure: a garbled report is not a passed one.

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// How many cases will be reported.
    Plan(usize),
    /// The case has begun.
    Begun(String),
    /// The case has ended.
    Ended(Case),
    /// A measurement.
    Figure(String),
    /// The guest's clock in microseconds right before PID 1 was executed.
    Exec(u64),
    /// The guest's clock in microseconds when a trivial service ran.
    Started(u64),
    /// All is reported.
    Done,
    /// Nothing that we know.
    Unknown(String),
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passed, in milliseconds.
    Passed(u64),
    /// It failed: why.
    Failed(String),
    /// It was left out: why.
    Skipped(String),
}

/// A named case and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its name, without spaces.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

impl Case {
    /// A case that failed.
    pub fn failed(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Failed(reason.into()) }
    }

    /// A case that passed if `held`, and failed with `reason` if not.
    pub fn held(name: impl Into<String>, held: bool, reason: impl FnOnce() -> String) -> Self {
        let outcome = if held { Outcome::Passed(0) } else { Outcome::Failed(reason()) };
        Self { name: name.into(), outcome }
    }
}

/// Reads one line.
#[must_use]
pub fn parse(line: &str) -> Line {
    let line = line.trim();
    understood(line).unwrap_or_else(|| Line::Unknown(line.to_owned()))
}

fn understood(line: &str) -> Option<Line> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Some(match word {
        "plan" => Line::Plan(rest.parse().ok()?),
        "case" => Line::Begun(name(rest)?),
        "ok" => {
            let (case, milliseconds) = rest.split_once(' ')?;
            Line::Ended(Case { name: name(case)?, outcome: Outcome::Passed(milliseconds.parse().ok()?) })
        }
        "not" => {
            let (case, reason) = rest.strip_prefix("ok ")?.split_once(": ")?;
            Line::Ended(Case::failed(name(case)?, reason))
        }
        "skip" => {
            let (case, reason) = rest.split_once(": ")?;
            Line::Ended(Case { name: name(case)?, outcome: Outcome::Skipped(reason.to_owned()) })
        }
        "figure" if !rest.is_empty() => Line::Figure(rest.to_owned()),
        "stamp" => match rest.split_once(' ')? {
            ("exec", microseconds) => Line::Exec(microseconds.parse().ok()?),
            ("started", numbers) => {
                let (service, microseconds) = numbers.split_once(' ')?;
                service.parse::<u32>().ok()?;
                Line::Started(microseconds.parse().ok()?)
            }
            _ => return None,
        },
        "done" if rest.is_empty() => Line::Done,
        _ => return None,
    })
}

fn name(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| text.to_owned())
}

/// All that one guest reported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    planned: Option<usize>,
    running: Option<String>,
    done: bool,
    unknown: Vec<String>,
    /// The cases that ended, in their order.
    pub cases: Vec<Case>,
    /// The measurements, in their order.
    pub figures: Vec<String>,
    /// The guest's clock right before PID 1 was executed, in microseconds.
    pub exec_us: Option<u64>,
    /// The guest's clock at each start of a trivial service, in microseconds.
    pub started_us: Vec<u64>,
}

impl Report {
    /// Takes in one line.
    pub fn feed(&mut self, line: Line) {
        match line {
            Line::Plan(count) => self.planned = Some(count),
            Line::Begun(name) => self.running = Some(name),
            Line::Ended(case) => {
                self.running = None;
                self.cases.push(case);
            }
            Line::Figure(text) => self.figures.push(text),
            Line::Exec(microseconds) => self.exec_us = Some(microseconds),
            Line::Started(microseconds) => self.started_us.push(microseconds),
            Line::Done => self.done = true,
            Line::Unknown(text) if text.is_empty() => {}
            Line::Unknown(text) => self.unknown.push(text),
        }
    }

    /// What is wrong with the report as a whole, after the guest has `ended` so: each fault as a failed case.
    #[must_use]
    pub fn faults(&self, ended: &str) -> Vec<Case> {
        let mut faults = Vec::new();
        if let Some(name) = &self.running {
            faults.push(Case::failed(name, format!("it had begun when the guest ended ({ended})")));
        }
        let reported = self.cases.len() + faults.len();
        match self.planned {
            None => faults.push(Case::failed("plan", format!("the guest named no plan ({ended})"))),
            Some(planned) => {
                let lacking = (reported..planned).map(|number| {
                    Case::failed(format!("planned-{}", number + 1), format!("never reported ({ended})"))
                });
                faults.extend(lacking);
            }
        }
        if self.planned.is_some_and(|planned| planned < reported) {
            faults.push(Case::failed("plan", format!("{reported} cases, and not as many planned")));
        }
        if !self.done {
            faults.push(Case::failed("done", format!("the report has no end ({ended})")));
        }
        let mut names: Vec<_> = self.cases.iter().map(|case| &case.name).collect();
        names.sort_unstable();
        let twice = names.windows(2).filter(|pair| matches!(pair, [one, two] if one == two));
        faults.extend(twice.flat_map(|pair| pair.first()).map(|name| Case::failed(*name, "reported twice")));
        let unknown =
            self.unknown.iter().map(|line| Case::failed("report", format!("not understood: {line}")));
        faults.extend(unknown);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::{Case, Line, Outcome, Report, parse};

    fn ended(name: &str, outcome: Outcome) -> Line {
        Line::Ended(Case { name: name.to_owned(), outcome })
    }

    #[test]
    fn lines() {
        let unknown = |text: &str| Line::Unknown(text.to_owned());
        let cases = [
            ("plan 12", Line::Plan(12)),
            ("plan", unknown("plan")),
            ("plan many", unknown("plan many")),
            ("case shield_holds\r", Line::Begun("shield_holds".to_owned())),
            ("case two words", unknown("case two words")),
            ("ok shield_holds 1234", ended("shield_holds", Outcome::Passed(1234))),
            ("ok shield_holds", unknown("ok shield_holds")),
            ("ok shield_holds 1.5", unknown("ok shield_holds 1.5")),
            ("not ok why: 3 != 4: no", ended("why", Outcome::Failed("3 != 4: no".to_owned()))),
            ("not ok why", unknown("not ok why")),
            ("skip psi: off", ended("psi", Outcome::Skipped("off".to_owned()))),
            ("figure PSS 900 KiB", Line::Figure("PSS 900 KiB".to_owned())),
            ("stamp exec 12", Line::Exec(12)),
            ("stamp started 50 99", Line::Started(99)),
            ("stamp started 99", unknown("stamp started 99")),
            ("done", Line::Done),
            ("done and dusted", unknown("done and dusted")),
            ("", unknown("")),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), expected, "{line:?}");
        }
    }

    /// The faults of a report with these lines, as "name: reason".
    fn faults(lines: &str) -> Vec<String> {
        let mut report = Report::default();
        lines.lines().for_each(|line| report.feed(parse(line)));
        let text = |case: Case| match case.outcome {
            Outcome::Failed(reason) => format!("{}: {reason}", case.name),
            other @ (Outcome::Passed(_) | Outcome::Skipped(_)) => format!("{}: {other:?}", case.name),
        };
        report.faults("gone").into_iter().map(text).collect()
    }

    #[test]
    fn whole_reports() {
        let cases: [(&str, &[&str]); 7] = [
            ("plan 2\ncase a\nok a 1\nskip b: no\nfigure x\ndone", &[]),
            ("plan 0\ndone", &[]),
            ("plan 1\nok a 1\nok b 1\ndone", &["plan: 2 cases, and not as many planned"]),
            (
                "plan 3\nok a 1\ncase b",
                &[
                    "b: it had begun when the guest ended (gone)",
                    "planned-3: never reported (gone)",
                    "done: the report has no end (gone)",
                ],
            ),
            ("", &["plan: the guest named no plan (gone)", "done: the report has no end (gone)"]),
            ("plan 2\nok a 1\nok a 1\ndone", &["a: reported twice"]),
            ("plan 0\nqemu: no\ndone", &["report: not understood: qemu: no"]),
        ];
        for (lines, expected) in cases {
            assert_eq!(faults(lines), expected, "{lines}");
        }
    }
}
