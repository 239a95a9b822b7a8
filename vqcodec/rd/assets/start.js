/* ==== start ==== */

try {
  startTheme();
  writeHeader();
  startChart();
  startPictures();
  writeTables();
  writeAbout();
} finally {
  document.body.classList.remove("unfinished");
}
