"""Small valid files of formats that are no text, written by hand: PDF, DOCX and EPUB."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def pdf(pages: Sequence[str], *, title: str = "", extra: Sequence[bytes] = (), trailer: str = "") -> bytes:
    """A PDF with a line of text on each page; an empty one has none."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, text in enumerate(pages):
        shown = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        content = f"BT /F1 12 Tf 50 700 Td ({shown}) Tj ET".encode() if text else b""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * at} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    objects += extra
    info = ""
    if title:
        objects.append(f"<< /Title ({title}) >>".encode())
        info = f"/Info {len(objects)} 0 R"
    return pdf_of(objects, f"{info} {trailer}")


def pdf_of(objects: Sequence[bytes], trailer: str = "") -> bytes:
    """A PDF of these objects, numbered from 1, the first the catalog."""
    made = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(made)
    made += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    made += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    made += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(made)


def encrypted_pdf() -> bytes:
    """A PDF whose password is not the empty one."""
    encryption = b"<< /Filter /Standard /V 1 /R 2 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> /P -4 >>"
    number = 6
    return pdf(["secret"], extra=[encryption], trailer=f"/Encrypt {number} 0 R /ID [<{'43' * 16}> <{'43' * 16}>]")


def nested_pdf(width: int = 60, depth: int = 8) -> bytes:
    """A page whose form draws a form `width` times, which draws another, and so on: `width ** depth` words in 3 kB."""
    first = 5
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R /Resources << /XObject << /X 6 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (6 * width, b"/X Do " * width),
    ]
    for level in range(depth):
        content = b"/X Do " * width if level < depth - 1 else b"BT /F1 12 Tf 50 700 Td (word) Tj ET"
        inside = b"/XObject << /X %d 0 R >>" % (first + 2 + level) if level < depth - 1 else b"/Font << /F1 3 0 R >>"
        objects.append(
            b"<< /Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << %s >> /Length %d >>\nstream\n%s\nendstream"
            % (inside, len(content), content)
        )
    return pdf_of(objects)


def paragraph(text: str, style: str = "", more: str = "") -> str:
    """A paragraph of WordprocessingML; `text` is already escaped."""
    kind = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f'<w:p><w:pPr>{kind}{more}</w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def docx(body: str, *, method: int = zipfile.ZIP_DEFLATED, **parts: str) -> bytes:
    """A DOCX with this body; `parts` are further parts below word/, without their ending."""
    styles = (
        f'<w:styles {W}><w:style w:styleId="Berschrift1"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:styleId="Title"><w:name w:val="Title"/></w:style></w:styles>'
    )
    made: dict[str, str | bytes] = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": styles,
        **{f"word/{name}.xml": text for name, text in parts.items()},
    }
    return zipped(made, method)


def zipped(parts: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, body in parts.items():
            archive.writestr(name, body)
    return file.getvalue()


def epub(chapters: dict[str, str], title: str = "A Book") -> bytes:
    """An EPUB with these chapters, in order."""
    items = "".join(
        f'<item id="c{at}" href="{name}" media-type="application/xhtml+xml"/>' for at, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{at}"/>' for at in range(len(chapters)))
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:title>{title}</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = '<container><rootfiles><rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    return zipped(
        {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "OEBPS/content.opf": package}
        | {f"OEBPS/{name}": text for name, text in chapters.items()}
    )
