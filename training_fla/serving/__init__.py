"""A page to try a model on: `fla serve`.

From the clip that is sent (`clip_reading`) over the states that the page shows (`translation`) to Gradio (`page`, with
`page.html`, `page.css` and `page.js`); `space` writes it as a Hugging Face Space.
"""
