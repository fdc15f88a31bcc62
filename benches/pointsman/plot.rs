//! Draws how a figure grows with the number of objects, as an SVG in which both axes are logarithmic.
//!
//! Absent: fonts and the clock. The same figures give the same bytes.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange, LogCoord, WithKeyPoints};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (760, 460);
const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(222, 225, 230);
const GOAL: RGBColor = RGBColor(176, 32, 48);
/// Distinguishable with a red-green colour deficiency too.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 95, 165),
    RGBColor(200, 105, 0),
    RGBColor(0, 130, 100),
    RGBColor(130, 70, 150),
    RGBColor(90, 90, 90),
];
/// The extent of the axis if no value is above zero.
const SMALLEST: f64 = 1.0;

/// The figure at one number of objects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    count: usize,
    least: f64,
    middle: f64,
    most: f64,
}

impl Point {
    /// The median and the spread of these runs; there is at least one.
    pub fn of(count: usize, runs: impl IntoIterator<Item = f64>) -> Self {
        let mut runs: Vec<f64> = runs.into_iter().collect();
        assert!(!runs.is_empty(), "nothing was measured at {count}");
        runs.sort_unstable_by(f64::total_cmp);
        Self {
            count,
            least: runs[0],
            middle: runs[(runs.len() - 1) / 2],
            most: runs[runs.len() - 1],
        }
    }
}

/// A growing figure: its name in the legend, and its points.
#[derive(Debug, Clone)]
pub struct Series {
    name: String,
    points: Vec<Point>,
}

impl Series {
    pub fn new(name: &str, points: impl IntoIterator<Item = Point>) -> Self {
        let mut points: Vec<Point> = points.into_iter().collect();
        points.sort_by_key(|point| point.count);
        Self {
            name: name.to_owned(),
            points,
        }
    }
}

/// Writes a plot of these series against their number of `objects`. A goal is a list of (number of objects, value): empty without a
/// goal, one point if it is the same for every number.
pub fn growth(
    title: &str,
    objects: &str,
    unit: &str,
    series: &[Series],
    goal: &[(usize, f64)],
    path: &Path,
) {
    let frame = Frame::around(series, goal);
    let mut drawing = String::new();
    frame
        .draw(
            &mut drawing,
            &Titles {
                title,
                objects,
                unit,
            },
            series,
            goal,
        )
        .expect("an SVG in memory can be drawn");
    fs::create_dir_all(path.parent().expect("a plot is in a folder"))
        .expect("its folder can be made");
    fs::write(path, drawing).expect("the plot can be written");
    eprintln!("written: {}", path.display());
}

struct Titles<'a> {
    title: &'a str,
    objects: &'a str,
    unit: &'a str,
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;
type LogAxis = WithKeyPoints<LogCoord<f64>>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogAxis, LogAxis>>;

/// The extents of the axes and their marks.
struct Frame {
    counts: Vec<f64>,
    lowest: f64,
    highest: f64,
}

impl Frame {
    fn around(series: &[Series], goal: &[(usize, f64)]) -> Self {
        let points = || series.iter().flat_map(|each| &each.points);
        let mut counts: Vec<usize> = points().map(|point| point.count).collect();
        counts.sort_unstable();
        counts.dedup();
        let values = points()
            .flat_map(|point| [point.least, point.most])
            .chain(goal.iter().map(|(_, value)| *value));
        let (least, most) = extent(values.filter(|value| *value > 0.0));
        // Space for the labels of the points, and for the legend above them.
        let legend = series.len() + usize::from(!goal.is_empty());
        Self {
            counts: counts.into_iter().map(number).collect(),
            lowest: least / 2.0,
            highest: most * headroom(least, most, legend),
        }
    }

    fn horizontal(&self) -> std::ops::Range<f64> {
        let (least, most) = extent(self.counts.iter().copied());
        least / 1.5..most * 2.0
    }

    /// A logarithmic axis has no zero: it is drawn on the edge, with its value as the label.
    fn clamped(&self, value: f64) -> f64 {
        value.max(self.lowest)
    }
}

impl Frame {
    fn draw<'a>(
        &self,
        into: &'a mut String,
        titles: &Titles,
        series: &[Series],
        goal: &[(usize, f64)],
    ) -> Drawn<'a> {
        let sheet = SVGBackend::with_string(into, SIZE).into_drawing_area();
        sheet.fill(&WHITE)?;
        let mut chart = self.axes(&sheet, titles)?;
        self.goal(&mut chart, goal)?;
        for (each, colour) in series.iter().zip(COLOURS.iter().cycle()) {
            self.series(&mut chart, each, *colour)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.9))
            .border_style(GRID)
            .label_font(text(14))
            .draw()?;
        sheet.present()
    }

    fn axes<'a, 'b>(
        &self,
        sheet: &'a DrawingArea<SVGBackend<'b>, Shift>,
        titles: &Titles,
    ) -> Result<Chart<'a, 'b>, DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>>
    {
        let horizontal = self
            .horizontal()
            .log_scale()
            .with_key_points(self.counts.clone());
        let marks = marks(self.lowest, self.highest);
        let vertical = (self.lowest..self.highest)
            .log_scale()
            .with_key_points(marks);
        let mut chart = ChartBuilder::on(sheet)
            .caption(titles.title, text(20))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(76)
            .build_cartesian_2d(horizontal, vertical)?;
        chart
            .configure_mesh()
            .x_desc(titles.objects)
            .y_desc(titles.unit)
            .axis_desc_style(text(15))
            .label_style(text(13))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .x_label_formatter(&|count| written(*count))
            .y_label_formatter(&|value| written(*value))
            .draw()?;
        Ok(chart)
    }

    fn goal<'a, 'b: 'a>(&self, chart: &mut Chart<'a, 'b>, goal: &[(usize, f64)]) -> Drawn<'b> {
        let (Some(first), Some(last)) = (goal.first(), goal.last()) else {
            return Ok(());
        };
        let edges = self.horizontal();
        // One goal for every number of objects is a horizontal line.
        let mut line: Vec<(f64, f64)> = goal
            .iter()
            .map(|(count, value)| (number(*count), self.clamped(*value)))
            .collect();
        if goal.len() == 1 {
            line = vec![
                (edges.start, self.clamped(first.1)),
                (edges.end, self.clamped(last.1)),
            ];
        }
        let style = GOAL.stroke_width(2);
        chart
            .draw_series(DashedLineSeries::new(line, 7, 5, style))?
            .label("goal")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        Ok(())
    }

    fn series<'a, 'b: 'a>(
        &self,
        chart: &mut Chart<'a, 'b>,
        series: &Series,
        colour: RGBColor,
    ) -> Drawn<'b> {
        let places = series
            .points
            .iter()
            .map(|point| (number(point.count), self.clamped(point.middle)));
        chart
            .draw_series(LineSeries::new(places, colour.stroke_width(2)))?
            .label(series.name.clone())
            .legend(move |(x, y)| {
                EmptyElement::at((x, y))
                    + PathElement::new([(0, 0), (18, 0)], colour.stroke_width(2))
                    + Circle::new((9, 0), 4, colour.filled())
            });
        chart.draw_series(series.points.iter().map(|point| self.spread(point, colour)))?;
        // Above and left of its point, so that a rising line does not cross it.
        let label = text(13)
            .color(&colour)
            .pos(Pos::new(HPos::Right, VPos::Bottom));
        chart.draw_series(series.points.iter().map(|point| {
            EmptyElement::at((number(point.count), self.clamped(point.middle)))
                + Circle::new((0, 0), 4, colour.filled())
                + Text::new(written(point.middle), (-7, -6), label.clone())
        }))?;
        Ok(())
    }

    fn spread(&self, point: &Point, colour: RGBColor) -> PathElement<(f64, f64)> {
        let count = number(point.count);
        PathElement::new(
            [
                (count, self.clamped(point.least)),
                (count, self.clamped(point.most)),
            ],
            colour.stroke_width(5),
        )
    }
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_text_style(&SIZE).color(&INK)
}

/// The least and the greatest value; a default if there are none.
fn extent(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let wider = |found: Option<(f64, f64)>, value: f64| match found {
        None => Some((value, value)),
        Some((least, most)) => Some((least.min(value), most.max(value))),
    };
    values
        .into_iter()
        .fold(None, wider)
        .unwrap_or((SMALLEST, SMALLEST))
}

/// The factor by which the axis exceeds the greatest value, so that the legend hides no point.
fn headroom(least: f64, most: f64, lines: usize) -> f64 {
    let share = (number(lines) * 0.08).min(0.4);
    (2.0 * most / least).powf(share / (1.0 - share)) * 1.5
}

/// Powers of ten; also 2 and 5 times these if fewer than three fit.
fn marks(lowest: f64, highest: f64) -> Vec<f64> {
    let powers = |steps: &'static [f64]| {
        let exponents = -12..13;
        let all = exponents
            .flat_map(move |exponent| steps.iter().map(move |step| step * 10f64.powi(exponent)));
        all.filter(|mark| (lowest..=highest).contains(mark))
            .collect::<Vec<f64>>()
    };
    let decades = powers(&[1.0]);
    if decades.len() < 3 {
        powers(&[1.0, 2.0, 5.0])
    } else {
        decades
    }
}

/// Three significant digits, with separated thousands.
fn written(value: f64) -> String {
    if value.abs() >= 100.0 {
        return in_thousands(&format!("{value:.0}"));
    }
    let places = match value.abs() {
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 4,
    };
    let digits = format!("{value:.places$}");
    digits
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

fn in_thousands(digits: &str) -> String {
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits"))
        .collect();
    groups.join(",")
}

#[allow(clippy::cast_precision_loss)] // far fewer than 2^52 objects
fn number(count: usize) -> f64 {
    count as f64
}
