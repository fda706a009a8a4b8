//! Plots as SVG.

use std::path::Path;

use plotters::prelude::*;

use super::speed::number;
use crate::Outcome;
use crate::speed::Comparison;

const OURS: RGBColor = RGBColor(0x1b, 0x7f, 0x4d);
const REFERENCE: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);
const BAR: u32 = 24;

/// How many times the reference's figure is ours, for every comparison that has both. Answers whether there is any.
pub(super) fn ratios(path: &Path, comparisons: &[&Comparison]) -> Outcome<bool> {
    let known: Vec<(String, f64)> = comparisons
        .iter()
        .filter(|comparison| !comparison.is_all_of_it())
        // A logarithm is of what is above nothing: the reference's may be a difference of two equal times too.
        .filter_map(|comparison| comparison.ratio().filter(|ratio| *ratio > 0.0).map(|ratio| (comparison, ratio)))
        .map(|(comparison, ratio)| (format!("{}, {}", comparison.work, comparison.what), ratio))
        .collect();
    if known.is_empty() {
        return Ok(false);
    }
    let most = known.iter().map(|(_, ratio)| *ratio).fold(10.0, f64::max) * 2.0;
    let least = known.iter().map(|(_, ratio)| *ratio).fold(0.5, f64::min) / 2.0;
    let rows = i32::try_from(known.len())?;
    let height = BAR * known.len() as u32 + 80;
    let area = SVGBackend::new(path, (1_200, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("the reference's figure over ours (logarithmic; above 1, ours takes less)", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(10)
        .build_cartesian_2d((least..most).log_scale(), (-rows..0).into_segmented())?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().x_label_formatter(&|ratio| format!("{ratio}")).draw()?;
    for (position, (what, ratio)) in known.iter().enumerate() {
        let (top, bottom) = (-(position as i32), -(position as i32) - 1);
        let color = if *ratio >= 1.0 { OURS } else { RED };
        let corners = [(1.0, SegmentValue::Exact(bottom)), (*ratio, SegmentValue::Exact(top))];
        let mut bar = Rectangle::new(corners, color.mix(0.35).filled());
        bar.set_margin(3, 3, 0, 0);
        chart.draw_series([bar])?;
        let label = format!("{what}: {} x", number(*ratio));
        let at = (least * 1.1, SegmentValue::CenterOf(bottom));
        let style = ("sans-serif", 12).into_font().color(&BLACK);
        let middle = plotters::style::text_anchor::VPos::Center;
        let style = style.pos(plotters::style::text_anchor::Pos::new(plotters::style::text_anchor::HPos::Left, middle));
        chart.draw_series([Text::new(label, at, style)])?;
    }
    area.present()?;
    Ok(true)
}

/// The time of a fresh list by the number of records in the store. Answers whether there is any.
pub(super) fn sizes(path: &Path, comparisons: &[Comparison]) -> Outcome<bool> {
    let times = |side: fn(&Comparison) -> Option<f64>| -> Vec<(f64, f64)> {
        comparisons
            .iter()
            .filter(|comparison| comparison.what.ends_with(": time"))
            .filter_map(|comparison| {
                let records = comparison.what.split("among ").nth(1)?.split(' ').next()?.parse().ok()?;
                Some((records, side(comparison)?))
            })
            .collect()
    };
    let sides = [
        ("ours", OURS, times(|comparison| comparison.ours.median())),
        ("reference, which fails above 4 MB", REFERENCE, times(|comparison| comparison.reference.median())),
    ];
    let values = || sides.iter().flat_map(|(_, _, points)| points).map(|(_, time)| *time);
    let (least, most) = (values().fold(f64::MAX, f64::min) / 2.0, values().fold(f64::MIN, f64::max) * 2.0);
    if least >= most {
        return Ok(false);
    }
    let area = SVGBackend::new(path, (800, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("a fresh list of 100 workers, by the number of records in etcd", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((800.0..125_000.0).log_scale(), (least..most).log_scale())?;
    chart.configure_mesh().x_desc("records").y_desc("ms").draw()?;
    for (name, color, points) in &sides {
        let style = color.stroke_width(2);
        let line = LineSeries::new(points.iter().copied(), style).point_size(4);
        chart.draw_series(line)?.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present()?;
    Ok(true)
}
