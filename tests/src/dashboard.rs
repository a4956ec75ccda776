//! The Grafana dashboard in `xdp-dedup/monitoring`, as Prometheus gets it from Grafana.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::prometheus::{Prometheus, Series};

/// The span that stands for Grafana's `$__rate_interval` and `$__range`: longer than any test.
pub const SPAN: &str = "10m";
/// The same in seconds.
pub const SPAN_SECONDS: f64 = 600.0;

/// Where dashboard, alert rules and their tests lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdp-dedup/monitoring")
}

/// The dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard(pub Value);

/// A query of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The title of the panel.
    pub panel: String,
    /// How Grafana names the series, `{{label}}` standing for a label's value.
    pub legend: String,
    /// In PromQL, variables filled in as Grafana does when all is chosen.
    pub expression: String,
}

impl Dashboard {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Where it is no JSON.
    pub fn read() -> Result<Self> {
        let path = folder().join("dashboard.json");
        let text = fs::read_to_string(&path)?;
        let parsed = serde_json::from_str(&text);
        parsed
            .map(Self)
            .with_context(|| format!("{} is no JSON", path.display()))
    }

    /// Its panels, but for the rows that they stand in.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.0["panels"].as_array().into_iter().flatten();
        panels.filter(|panel| panel["type"] != "row")
    }

    /// The queries of all panels.
    ///
    /// # Errors
    ///
    /// Where a panel has none, or one names an unknown variable.
    pub fn queries(&self) -> Result<Vec<Query>> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            let title = panel["title"].as_str().context("a panel without title")?;
            let targets = panel["targets"].as_array();
            let targets = targets.filter(|targets| !targets.is_empty());
            for target in targets.with_context(|| format!("{title}: no query"))? {
                let text = |name: &str| target[name].as_str().unwrap_or_default();
                queries.push(Query {
                    panel: title.to_owned(),
                    legend: text("legendFormat").to_owned(),
                    expression: filled_in(text("expr")).with_context(|| title.to_owned())?,
                });
            }
        }
        Ok(queries)
    }

    /// The metric and the label that each variable's values are of.
    ///
    /// # Errors
    ///
    /// Where a variable is made in another way than by `label_values(metric, label)`.
    pub fn variables(&self) -> Result<Vec<(String, String)>> {
        let all = self.0["templating"]["list"].as_array();
        let all = all.context("no variables")?.iter();
        all.filter(|variable| variable["type"] == "query")
            .map(|variable| {
                let definition = variable["query"]["query"].as_str().unwrap_or_default();
                let inside = definition
                    .strip_prefix("label_values(")
                    .and_then(|rest| rest.strip_suffix(')'));
                let (selector, label) = inside
                    .and_then(|inside| inside.rsplit_once(", "))
                    .with_context(|| format!("not label_values: {definition:?}"))?;
                Ok((filled_in(selector)?, label.to_owned()))
            })
            .collect()
    }

    /// Asks Prometheus for everything on the dashboard, at its last scrape.
    ///
    /// # Errors
    ///
    /// Where a query is refused or has no answer, or its series lack a label that the panel shows.
    pub fn ask(&self, prometheus: &Prometheus) -> Result<Vec<(Query, Vec<Series>)>> {
        for (selector, label) in self.variables()? {
            let values = prometheus.query_at_last_scrape(&selector)?;
            ensure!(
                values
                    .iter()
                    .any(|series| series.labels.contains_key(&label)),
                "no values of {label} in {selector}: {values:?}"
            );
        }
        let mut answers = Vec::new();
        for query in self.queries()? {
            let Query {
                panel,
                legend,
                expression,
            } = &query;
            let series = prometheus
                .query_at_last_scrape(expression)
                .with_context(|| panel.clone())?;
            if series.is_empty() {
                bail!("{panel}: no data: {expression}");
            }
            for label in legend.split("{{").skip(1) {
                let label = label.split("}}").next().unwrap_or_default().trim();
                for series in &series {
                    ensure!(
                        series.labels.contains_key(label),
                        "{panel}: the legend shows {label}, but the series has {:?}",
                        series.labels
                    );
                }
            }
            answers.push((query, series));
        }
        Ok(answers)
    }
}

/// The series of a panel whose labels are these among others; of the query whose legend begins so.
///
/// # Errors
///
/// Where there is not one.
pub fn value(
    answers: &[(Query, Vec<Series>)],
    panel: &str,
    legend: &str,
    labels: &[(&str, &str)],
) -> Result<f64> {
    let series: Vec<&Series> = answers
        .iter()
        .filter(|(query, _)| query.panel == panel && query.legend.starts_with(legend))
        .flat_map(|(_, series)| series)
        .filter(|series| {
            let has = |(name, value): &(&str, &str)| {
                series.labels.get(*name).is_some_and(|found| found == value)
            };
            labels.iter().all(has)
        })
        .collect();
    match series[..] {
        [one] => Ok(one.value),
        _ => bail!("{panel}, {legend:?}, {labels:?}: not one series: {series:?}"),
    }
}

fn filled_in(text: &str) -> Result<String> {
    let text = text
        .replace("$__rate_interval", SPAN)
        .replace("$__range", SPAN)
        .replace("$instance", ".+")
        .replace("$interface", ".+");
    // `$1` is PromQL's own.
    let unknown = text.replace("$1", "");
    ensure!(!unknown.contains('$'), "an unknown variable: {text}");
    Ok(text)
}
