//! The chart: one bar per row, as long as the figure is compared with its floor, on a logarithmic scale.

use super::Line;
use super::rows::Better;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 230.0;
const STEP: f64 = 26.0;

/// Draws the judged rows. The thick line is the floor; bars that end left of it keep it.
pub(crate) fn svg(lines: &[Line]) -> String {
    let shown: Vec<(&Line, f64)> = lines
        .iter()
        .filter_map(|line| badness(line).map(|b| (line, b)))
        .collect();
    let height = STEP * (f64::from(u32::try_from(shown.len()).unwrap_or(0)) + 3.0);
    let scale = |badness: f64| LEFT + 300.0 + 130.0 * badness.log2().clamp(-2.2, 2.2);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">Cost compared with the floor of each row (left of the line is better)</text>\n"
    );
    for mark in [0.25, 0.5, 1.0, 2.0, 4.0] {
        let (x, width) = (scale(mark), if mark == 1.0 { 2 } else { 1 });
        out.push_str(&format!(
            "<line x1=\"{x:.0}\" x2=\"{x:.0}\" y1=\"34\" y2=\"{:.0}\" stroke=\"{}\" stroke-width=\"{width}\"/>\
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{mark}x</text>\n",
            height - 20.0,
            if mark == 1.0 { "#333" } else { "#ddd" },
            height - 6.0
        ));
    }
    for (at, (line, badness)) in shown.iter().enumerate() {
        let y = 40.0 + STEP * f64::from(u32::try_from(at).unwrap_or(0));
        let colour = match line.verdict {
            "goal" => "#2a9d4a",
            "floor" => "#7fb069",
            _ => "#d1495b",
        };
        let (from, to) = (scale(0.0), scale(*badness));
        out.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{} ({})</text>\
             <rect x=\"{from:.0}\" y=\"{y:.0}\" width=\"{:.0}\" height=\"16\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{:.2}{}</text>\n",
            LEFT - 8.0,
            y + 13.0,
            line.row.name,
            line.row.place,
            (to - from).max(2.0),
            to + 5.0,
            y + 13.0,
            line.figure.unwrap_or(f64::NAN),
            line.row.sign
        ));
    }
    out.push_str("</svg>\n");
    out
}

/// How many times the floor a figure costs; 1 is exactly the floor.
fn badness(line: &Line) -> Option<f64> {
    let figure = line.figure?;
    Some(match line.row.better {
        Better::Less => (figure / line.row.floor).max(0.01),
        Better::More => line.row.floor / figure.max(0.001),
    })
}
